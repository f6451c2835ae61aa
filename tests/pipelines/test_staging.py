"""What is staged is found under its new address, once, and is the same to every step as what lies here."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import datasets
import pytest

from components import base_model
from components.base_model import model_digest, model_folder, model_inputs, tokenizer_folder
from components.config import DatasetConfig, RunConfig, StorageConfig
from components.config_transport import pack
from components.data.run import run as prepare
from components.errors import UserError
from components.object_store import LocalStore, ObjectStore, open_store
from components.step import read_references
from pipelines.checks import model_problems
from pipelines.staging import stage
from tests.conftest import plain

FORMS = ("file", "folder", "saved")  # of a dataset: one file, published splits, a saved Hugging Face dataset


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    if request.param == "local":
        return StorageConfig(uri=str(tmp_path / "store"))
    endpoint = request.getfixturevalue("endpoint")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where copies of artifacts are kept
    base_model._fetched.cache_clear()  # a process verifies a model once
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="bucket")
    return StorageConfig(uri="s3://bucket/team/runs", endpoint_url=endpoint, addressing="path")


@pytest.fixture
def store(storage: StorageConfig) -> ObjectStore:
    return open_store(storage, Path())


@pytest.fixture
def config(storage: StorageConfig, llama_folder: Path, tmp_path: Path) -> RunConfig:
    """One dataset of each form, and things beside them that are nobody else's business."""
    rows = [{"text": f"row {number}", "label": ("yes", "no")[number % 2]} for number in range(300)]
    data = tmp_path / "data"
    for part in ("train", "validation", "test"):
        write(data / "folder" / f"{part}.jsonl", [row | {"text": f"{part} {row['text']}"} for row in rows])
    write(data / "file.jsonl", rows)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(data / "saved")
    (data / "folder" / "credentials.json").write_text("{}")
    model = shutil.copytree(llama_folder, tmp_path / "somewhere")
    (model / "optimizer.pt").write_text("large")
    paths = {"file": "file.jsonl", "folder": "folder", "saved": "saved"}
    entries = [DatasetConfig(name=name, path=str(data / paths[name])) for name in FORMS]
    return RunConfig(model=plain(model), datasets=entries, storage=storage)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(config: RunConfig, folder: Path) -> dict[str, str]:
    """The keys that `prepare` gives the datasets."""
    prepare(pack(config), "run", folder / "references.json")
    return read_references(folder / "references.json")


def test_a_staged_run_needs_nothing_from_here_and_meets_the_same_keys(
    config: RunConfig, store: ObjectStore, tmp_path: Path
) -> None:
    keys, inputs = prepared(config, tmp_path), model_inputs(config.model)
    tokenizer = (model_folder(config.model) / "tokenizer.json").read_bytes()
    staged = stage(config, store)
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "somewhere")
    assert prepared(staged, tmp_path) == keys
    assert model_inputs(staged.model) == inputs
    assert (model_folder(staged.model) / "tokenizer.json").read_bytes() == tokenizer
    assert model_problems(staged.model) == []
    where = f"{store.root}/staged/" if isinstance(store, LocalStore) else "s3://bucket/team/runs/staged/"
    for name, entry in zip(("file.jsonl", "folder", "saved"), staged.datasets, strict=True):
        assert str(entry.path).startswith(where) and str(entry.path).endswith(f"/{name}")
    assert staged.model.id.startswith(where) and staged.model.id.endswith("/model")


def test_only_what_a_run_reads_is_uploaded_and_only_once(
    config: RunConfig, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    staged = stage(config, store)
    names = {"/".join(key.split("/")[3:]) or key.split("/")[2] for key in store.keys("staged/")}
    assert {"manifest.json", "file.jsonl", "folder/test.jsonl", "saved/dataset_dict.json"} <= names
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= names
    assert not {name for name in names if "credentials" in name or name.endswith(".pt")}
    assert "stage folder: finished in " in capsys.readouterr().out

    manifest = next(key for key in store.keys("staged/") if key.endswith("manifest.json"))
    store.write(manifest, store.read(manifest) + b" ")  # a second upload would undo this
    assert stage(config, store) == staged
    assert stage(staged, store) == staged
    assert store.read(manifest).endswith(b" ")
    assert "stage folder: reused" in capsys.readouterr().out


def test_changed_rows_are_another_artifact(config: RunConfig, store: ObjectStore) -> None:
    before = stage(config, store)
    with Path(str(config.dataset("file").path)).open("a") as file:
        file.write('{"text": "new", "label": "no"}\n')
    after = stage(config, store)
    assert after.dataset("file").path != before.dataset("file").path
    assert after.dataset("folder") == before.dataset("folder") and after.model == before.model
    assert store.exists(key_in(store, before.dataset("file")))


def key_in(store: ObjectStore, entry: DatasetConfig) -> str:
    return "staged/" + str(entry.path).split("/staged/")[1]


def test_what_is_not_there_is_told_at_once(config: RunConfig, store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    entries = [DatasetConfig(name="gone", path="/no/such"), DatasetConfig(name="empty", path=str(tmp_path / "empty"))]
    with pytest.raises(UserError, match="not there") as caught:
        stage(config.model_copy(update={"datasets": [*config.datasets, *entries]}), store)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["gone", "empty"]
    assert list(store.keys("staged/")) == []


def test_hub_and_bucket_addresses_stay(storage: StorageConfig, store: ObjectStore) -> None:
    entries: list[Any] = [{"name": "a", "hub": "imdb"}, {"name": "b", "path": "s3://bucket/b"}]
    config = RunConfig.model_validate({"model": {"id": "Qwen/Qwen2.5-0.5B"}, "datasets": entries})
    assert stage(config, store) == config


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_a_staged_model_is_known_without_being_fetched_and_verified_when_it_is(
    config: RunConfig, store: ObjectStore, tmp_path: Path
) -> None:
    staged = stage(config, store).model
    assert model_digest(staged) == model_digest(config.model)
    assert not list(tmp_path.glob("loraloom-cache*/*"))
    weights = next(key for key in store.keys("staged/") if key.endswith("model.safetensors"))
    store.write(weights, store.read(weights)[:-1] + b"x")
    with pytest.raises(UserError, match="does not match the checksum"):
        model_folder(staged)
    tokenizer = tokenizer_folder(staged)  # without the weights, which nobody looks at
    assert (tokenizer / "tokenizer.json").read_bytes() == (Path(config.model.id) / "tokenizer.json").read_bytes()
    assert (tokenizer / "config.json").is_file() and not list(tokenizer.glob("*.safetensors"))


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_an_address_without_a_staged_model_is_a_user_error(config: RunConfig, storage: StorageConfig) -> None:
    gone = config.model.model_copy(update={"id": "s3://bucket/team/runs/staged/00/model", "storage": storage})
    (problem,) = model_problems(gone)
    assert problem.startswith("model.id: no staged model at s3://bucket/team/runs/staged/00/model")
