"""Coverage-guided fuzzing (atheris) of what reads strangers' bytes: ``python -m tests.faults.fuzz config|data``.

Further arguments are libFuzzer's (``-max_total_time=600``, ``-runs=...``, a corpus folder). Whatever is not a message
for the user ends it with the input that brought it about.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["components.config_file", "components.yaml_tree", "components.formats", "components.data"]
):
    from components.config import DatasetConfig, StorageConfig
    from components.config_file import read_config
    from components.data.prepare import prepare
    from components.errors import UserError
    from components.formats import FORMATS

FOLDER = Path(tempfile.mkdtemp(prefix="loraloom-fuzz-"))
SOUND = b"model: {id: m}\ndatasets: [{name: a, path: a}]\n"


def config(data: bytes) -> None:
    """Any bytes as a config, alone and behind one that works."""
    path = FOLDER / "config.yaml"
    for text in (data, SOUND + data):
        path.write_bytes(text)
        try:
            read_config(path)
        except UserError as error:
            assert str(path) in str(error)


def data(given: bytes) -> None:
    """Any bytes as a file of each format, and as a dataset."""
    for ending in FORMATS:
        path = FOLDER / f"data{ending}"
        path.write_bytes(given)
        try:
            prepare(DatasetConfig(name="a", path=path.name), StorageConfig(), FOLDER)
        except UserError as error:
            assert error.problems


if __name__ == "__main__":
    target, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], {"config": config, "data": data}[target])
    atheris.Fuzz()
