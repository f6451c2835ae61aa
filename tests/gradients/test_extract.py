"""The step `extract`, killed and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.config import GradientsConfig, ModelConfig, WarmStartConfig
from components.gradients import shards as module
from components.gradients.extract import run
from components.gradients.shards import shards
from components.gradients.warm_start import run as warm_start
from components.object_store import LocalStore
from components.step import Step, read_records, read_references
from tests.conftest import random_examples
from tests.tiny_ensemble import write_base
from tests.tiny_training import publish_datasets, tiny_config, toy_dataset

ROOT = Path(__file__).parents[2]
# Six rows a batch and one batch a shard; dies by SIGKILL when it wants to publish one more shard than it may.
KILLED = """
import os, signal, sys
from pathlib import Path
from components.gradients import shards
from components.gradients.extract import run
config, folder, left = Path(sys.argv[1]).read_text(), Path(sys.argv[2]), int(sys.argv[3])
shards.BATCHES_A_SHARD, publish = 1, shards.publish
def limited(*arguments, **named):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return publish(*arguments, **named)
shards.publish = limited
run(config, "killed", folder / "datasets", folder / "start", '["mood"]', folder / "features")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


def prepared(model: ModelConfig, folder: Path) -> str:
    """A store with one dataset and theta*; the run's config as JSON."""
    sections = {"warm_start": WarmStartConfig(epochs=0), "gradients": GradientsConfig(dim=16, batch_tokens=64)}
    config = tiny_config(model, folder / "store", **sections).model_dump_json()
    publish_datasets(LocalStore(folder / "store"), [toy_dataset("mood")], folder / "datasets")
    warm_start(config, "first", '{"champion": {}}', folder / "datasets", folder / "start")
    return config


def extracted(config: str, folder: Path) -> dict[str, bytes]:
    """The bytes of the features after a run to the end."""
    run(config, "last", folder / "datasets", folder / "start", '["mood"]', folder / "features")
    with Step("reader", config, "reader") as step:
        artifact = step.load(read_references(folder / "features"), "features/mood")
    return {path.name: path.read_bytes() for path in artifact.folder.glob("*.safetensors")}


def test_killed_and_started_again_it_goes_on_to_the_same_bytes(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 1)
    whole = extracted(prepared(model, tmp_path / "whole"), tmp_path / "whole")
    folder = tmp_path / "killed"
    config = prepared(model, folder)
    (folder / "config.json").write_text(config)
    command = [sys.executable, "-c", KILLED, str(folder / "config.json"), str(folder), "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = LocalStore(folder / "store")
    left = [key for key in store.keys("checkpoints/") if key.endswith("/manifest.json")]
    assert len(left) == 3
    assert not list(store.keys("features/"))
    taken: list[int] = []
    publish = module.publish
    monkeypatch.setattr(module, "publish", lambda *a, **named: taken.append(1) or publish(*a, **named))
    assert extracted(config, folder) == whole
    rows = 32 + 16
    assert 0 < len(taken) < rows and whole.keys() == {"train.safetensors", "validation.safetensors"}
    assert not list(store.keys("checkpoints/"))
    record = next(r for r in read_records(store, "last") if r["step"] == "extract")
    assert record["artifacts"]["features/mood"]["fresh"]


def test_shards_are_whole_batches_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 3)
    examples = random_examples(list(range(1, 60)))
    found = shards(examples, 64)
    assert len(found) > 3
    assert sorted(i for part in found for i in part.tolist()) == list(range(59))
    lengths = [len(examples.ids[i]) for part in found for i in part]
    assert lengths == sorted(lengths, reverse=True)
