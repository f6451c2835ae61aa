"""What a run leaves behind holds no secret and no code, and no name in it leads anywhere else."""

import ast
import base64
import json
import re
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors import safe_open

from components.artifacts import digest_of, load, publish
from components.checkpoints import Checkpoints
from components.errors import UserError
from components.inside import inside
from components.object_store import LocalStore, ObjectStore
from tests.faults.conftest import SECRETS, Finished

ROOT = Path(__file__).parents[2]
DATABASE = b"SQLite format 3\0"
# Modules that make objects or run code out of bytes, or unpack archives whose names may climb.
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile", "zipfile", "telnetlib"}
NEVER_CALLED = {
    "eval",
    "exec",
    "torch.load",
    "yaml.load",
    "shutil.unpack_archive",
    "os.system",
    "numpy.load",
    "np.load",
}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_no_secret_of_the_environment_is_left_anywhere(finished: Finished) -> None:
    """Store, MLflow's database and artifacts, what steps pass on, events, log, report: every byte is looked at."""
    looked_at = files(finished.root)
    assert {"mlflow.db", "child.log", "events.jsonl", "report.html"} <= {path.name for path in looked_at}
    for path in looked_at:
        content = path.read_bytes()
        for name, secret in SECRETS.items():
            planted = secret.rpartition("/")[2].encode()
            assert planted not in content, f"{name} in {path}"
            assert base64.b64encode(planted)[:-4] not in content, f"{name} in {path}"


def read(path: Path) -> None:
    """Read a file as what it has to be by its name; whatever is none of these raises."""
    match path.suffix:
        case ".safetensors":
            with safe_open(path, "numpy") as tensors:
                assert list(tensors.keys())
        case ".parquet":
            pq.read_table(path)
        case ".json":
            json.loads(path.read_text("utf-8"))
        case ".yaml" | ".yml":
            yaml.safe_load(path.read_text("utf-8"))
        case ".py":
            ast.parse(path.read_text("utf-8"))
        case ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        case ".svg" | ".html" | ".j2" | ".txt" | ".jsonl" | ".md" | ".log" | "":
            assert "\0" not in path.read_text("utf-8")
        case _:
            raise AssertionError(f"{path}: nothing that a run leaves is such a file")


def test_nothing_is_a_pickle_and_every_artifact_is_what_it_says(finished: Finished) -> None:
    stored, logged = files(finished.root / "store"), files(finished.root / "mlflow-artifacts")
    assert len(stored) > 50
    assert len(logged) > 20
    kinds = set()
    for path in [*stored, *logged]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            read(path)
        kinds.add(path.suffix)
        head = path.read_bytes()[:2]
        assert not re.match(rb"\x80[\x02-\x05]", head) and head != b"PK", path
    assert {".safetensors", ".parquet", ".json"} <= kinds


def test_no_code_unpickles_unpacks_or_evaluates() -> None:
    for path in [*(ROOT / "components").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.partition(".")[0] for name in modules} & NEVER, path
            if isinstance(node, ast.Call):
                safe = "yaml.CSafeLoader" in map(ast.unparse, node.args)
                assert safe or ast.unparse(node.func) not in NEVER_CALLED, f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a/../../../../tmp/x"])
def test_a_name_from_outside_stays_inside(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leads out of its folder"):
        inside(tmp_path / "folder", name)
    with pytest.raises(ValueError, match="leaves the store's folder"):
        LocalStore(tmp_path / "store").write(name, b"")


def test_a_link_does_not_lead_out_either(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to("/etc")
    with pytest.raises(UserError, match="leads out of its folder"):
        inside(tmp_path / "folder", "out/passwd")


def remote(folder: Path) -> ObjectStore:
    """A local folder behind the interface only, as a bucket is."""
    inner = LocalStore(folder)

    class Remote:
        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    return Remote()  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../../evil"])
def test_a_manifest_cannot_write_outside_the_cache(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone with access to the bucket names a file that would land elsewhere; its digest even fits."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    store = remote(tmp_path / "store")
    entries = {name: {"sha256": "0" * 64, "size": 1}}
    digest = digest_of({name: "0" * 64})
    manifest = {"digest": digest, "folder": "", "files": entries, "inputs": {}, "facts": {}}
    store.write("dataset/x/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(UserError, match="leads out of its folder"):
        load(store, "dataset/x")
    assert list(tmp_path.rglob("evil")) == []


@pytest.mark.parametrize("change", [{"digest": "../../../home"}, {"digest": "0" * 64}, {"folder": "../other"}])
def test_a_manifest_cannot_name_another_folder(change: dict[str, str], tmp_path: Path) -> None:
    """The digest names a folder that is deleted when it is damaged: it has to be the one of the files."""
    store = LocalStore(tmp_path)
    made = publish(store, "dataset", {}, lambda folder: {"bytes": (folder / "a").write_bytes(b"a")})
    manifest = json.loads(store.read(f"{made.key}/manifest.json")) | change
    store.write(f"{made.key}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(UserError, match="contradicts itself") as caught:
        load(store, made.key)
    assert "only this artifact is made anew" in caught.value.remedy


@pytest.mark.parametrize("newest", ["../../evil", "/etc", ".."])
def test_a_checkpoint_cannot_be_restored_from_elsewhere(newest: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("checkpoints/job/newest", newest.encode())
    with pytest.raises(UserError, match="leads out of its folder"):
        Checkpoints(store, "job", tmp_path / "folder").restore()


def test_images_run_as_nobody_in_particular() -> None:
    """What Kubernetes adds (no capabilities, a read-only root) is asserted in tests/infra and tests/pipelines."""
    for path in (ROOT / "images").glob("*/Dockerfile"):
        text = path.read_text()
        users = re.findall(r"^USER (.+)$", text, re.MULTILINE)
        assert users[-1:] == ["1000:1000"] or (not users and "\nFROM ${PARENT}\n" in text), path  # or as its parent
