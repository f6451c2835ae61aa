"""Every kind of source gives the same records; what cannot be read is named with its file and line."""

import csv
import json
from pathlib import Path
from typing import Any

import boto3
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config import DatasetConfig, StorageConfig
from components.data.read import match_splits, open_source
from components.errors import UserError
from components.formats import Problem
from tests.privileges import open_folder, without_privileges

RECORDS = [{"text": "first\nline", "label": "yes"}, {"text": 'the "second", ☂', "label": "no"}]
FIELDS = ["text", "label"]


def read(path: str, base: Path, *, fields: list[str] = FIELDS, **settings: Any) -> dict[tuple[str, str], list[Any]]:
    """All parts of a source: (origin, split) -> list of (line, record or problem)."""
    storage = settings.pop("storage", StorageConfig())
    with open_source(DatasetConfig(name="demo", path=path, **settings), storage, base) as parts:
        return {(part.origin, part.split): list(part.rows(fields)) for part in parts}


def write_jsonl(path: Path, records: list[dict[str, Any]] = RECORDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(RECORDS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), path)


@pytest.mark.parametrize(
    ("write", "name", "lines"),
    [(write_jsonl, "d.jsonl", (1, 2)), (write_csv, "d.csv", (2, 4)), (write_parquet, "d.parquet", (1, 2))],
)
def test_every_format_gives_the_same_records(write: Any, name: str, lines: tuple[int, int], tmp_path: Path) -> None:
    write(tmp_path / name)
    assert read(name, tmp_path) == {(name, "train"): list(zip(lines, RECORDS, strict=True))}


def test_an_absolute_path_needs_no_base(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl")
    assert list(read(str(tmp_path / "d.jsonl"), Path("elsewhere"))) == [(str(tmp_path / "d.jsonl"), "train")]


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbftext,label\r\na,x\r\n\r\nb,y\r\n")
    assert read("d.jsonl", tmp_path)[("d.jsonl", "train")] == [(1, {"text": "a"}), (3, {"text": "b"})]
    assert read("d.csv", tmp_path)[("d.csv", "train")] == [
        (2, {"text": "a", "label": "x"}),
        (4, {"text": "b", "label": "y"}),
    ]


def test_broken_json_lines_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"text": \n[1]\n{"text": "caf\xe9"}\n{"text": "ok"}\n')
    rows = read("d.jsonl", tmp_path)[("d.jsonl", "train")]
    assert [(line, getattr(row, "reason", row)) for line, row in rows] == [
        (1, "broken_json"),
        (2, "broken_json"),
        (3, "wrong_encoding"),
        (4, {"text": "ok"}),
    ]
    assert rows[2][1].what == "byte 14 of the line is not UTF-8"


def test_broken_csv_rows_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'text,label\na\n"b"c,x\ngood,y\n"never ends,z\n')
    rows = read("d.csv", tmp_path)[("d.csv", "train")]
    assert rows[0] == (2, Problem("broken_csv", "1 columns where the header has 2"))
    assert (rows[1][0], rows[1][1].reason) == (3, "broken_csv")
    assert rows[2] == (4, {"text": "good", "label": "y"})
    assert (rows[3][0], rows[3][1].reason) == (5, "broken_csv")
    assert len(rows) == 4


def test_a_text_beyond_the_csv_modules_default_limit(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"text,label\n{'x' * 200_000},y\n")
    ((_, record),) = read("d.csv", tmp_path)[("d.csv", "train")]
    assert len(record["text"]) == 200_000


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_missing_column_is_one_error_and_not_one_a_row(write: Any, tmp_path: Path) -> None:
    name = f"d.{write.__name__.removeprefix('write_')}"
    write(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} has no column 'review'; its columns are text, label"):
        read(name, tmp_path, fields=["review", "label"])


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,text,label\na,b,c\n")
    with pytest.raises(UserError, match="more than one column 'text'"):
        read("d.csv", tmp_path)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_text("rubbish")
    with pytest.raises(UserError, match=r"d\.parquet is no readable Parquet file"):
        read("d.parquet", tmp_path)


@pytest.mark.parametrize("path", ["d.jsonl", "d.csv", "d.parquet", "folder", "shut/d.jsonl"])
def test_what_may_not_be_read_is_named_with_a_remedy(path: str) -> None:
    with open_folder() as base:
        write_jsonl(base / "d.jsonl")
        write_csv(base / "d.csv")
        write_parquet(base / "d.parquet")
        write_jsonl(base / "folder" / "train.jsonl")
        write_jsonl(base / "folder" / "inside" / "more.jsonl")
        write_jsonl(base / "shut" / "d.jsonl")
        for shut in ("d.jsonl", "d.csv", "d.parquet", "folder/inside", "shut"):
            (base / shut).chmod(0)
        with without_privileges(), pytest.raises(UserError) as caught:
            read(path, base)
    named = f"{base}/folder/inside" if path == "folder" else path
    assert caught.value.what == f"{named} cannot be read: Permission denied"
    assert caught.value.remedy == "let the user that runs loraloom read it"


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_file_that_is_gone_or_replaced_before_it_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with open_source(DatasetConfig(name="demo", path=name), StorageConfig(), tmp_path) as (part,):
        (tmp_path / name).unlink()
        with pytest.raises(UserError, match=f"^{name} cannot be read: .*\n-> see that it is a whole file"):
            list(part.rows(FIELDS))
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=rf"^{name} (cannot be read|is no readable Parquet file): .*directory"):
            list(part.rows(FIELDS))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("none.jsonl", r"none\.jsonl is not there"),
        ("d.txt", r"d\.txt is no \.jsonl, \.csv, \.parquet file"),
        ("empty", r"no \.jsonl, \.csv, \.parquet file under empty"),
        ("gs://bucket/x", "is no address loraloom can read"),
    ],
)
def test_sources_that_are_not_there(path: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "d.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=what):
        read(path, tmp_path)


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.jsonl", "validation.jsonl", "test.jsonl"], ["test", "train", "validation"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"], ["train", "train"]),
        (["test/part-0.jsonl", "train/part-0.jsonl", "train/part-1.jsonl"], ["test", "train", "train"]),
        (["2023.jsonl", "2024.jsonl"], ["train", "train"]),
    ],
)
def test_folders(files: list[str], splits: list[str], tmp_path: Path) -> None:
    for file in files:
        write_jsonl(tmp_path / "folder" / file)
    (tmp_path / "folder" / "README.md").touch()
    parts = read("folder/", tmp_path)
    assert list(parts) == [(f"folder/{file}", split) for file, split in zip(sorted(files), splits, strict=True)]
    assert all(rows == [(1, RECORDS[0]), (2, RECORDS[1])] for rows in parts.values())


def test_given_splits_choose_files(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write_jsonl(tmp_path / "folder" / f"{name}.jsonl")
    parts = read("folder", tmp_path, splits={"test": "dev"})
    assert list(parts) == [("folder/dev.jsonl", "test"), ("folder/train.jsonl", "train")]


def test_a_single_file_has_no_splits(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match="a single file has no published splits"):
        read("train.jsonl", tmp_path, splits={"train": "train"})


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["train", "test"], None, {"train": "train", "test": "test"}),
        (["a", "b"], None, {"a": "train", "b": "train"}),
        (["train", "validation", "test"], {"test": "validation"}, {"train": "train", "validation": "test"}),
        (["full", "dev"], {"train": "full", "validation": "dev"}, {"full": "train", "dev": "validation"}),
        (["train", "extra", "test"], {"train": "train"}, {"train": "train", "test": "test"}),
    ],
)
def test_match_splits(names: list[str], given: Any, expected: dict[str, str]) -> None:
    assert match_splits(names, given) == expected


@pytest.mark.parametrize(
    ("names", "given", "what"),
    [
        (["train", "dev"], None, "what is dev beside train"),
        (["validation", "test"], None, "no train among test, validation"),
        (["train"], {"test": "dev"}, "there is no dev"),
    ],
)
def test_unclear_splits(names: list[str], given: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        match_splits(names, given)


def saved_dataset() -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)


NAMED = [(1, {"text": "a", "label": "yes"}), (2, {"text": "b", "label": "no"}), (3, {"text": "c", "label": None})]


def test_a_saved_dataset_gives_class_names(tmp_path: Path) -> None:
    saved_dataset().save_to_disk(tmp_path / "saved")
    assert read("saved", tmp_path) == {("saved[train]", "train"): NAMED}


def test_a_saved_dataset_with_splits(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": saved_dataset(), "dev": saved_dataset()}).save_to_disk(tmp_path / "saved")
    parts = read("saved", tmp_path, splits={"validation": "dev"})
    assert parts == {("saved[train]", "train"): NAMED, ("saved[dev]", "validation"): NAMED}
    with pytest.raises(UserError, match="has no column 'review'"):
        read("saved", tmp_path, splits={"validation": "dev"}, fields=["review"])


def test_a_broken_saved_dataset(tmp_path: Path) -> None:
    saved_dataset().save_to_disk(tmp_path / "saved")
    for file in (tmp_path / "saved").glob("*.arrow"):
        file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match="saved is no readable saved dataset") as caught:
        read("saved", tmp_path)
    assert caught.value.remedy == "save it anew with save_to_disk"


def test_a_hub_id_goes_through_the_same_reader(tmp_path: Path) -> None:
    # load_dataset takes a folder in the place of an id, which spares the test a network.
    write_jsonl(tmp_path / "hub" / "train.jsonl")
    write_jsonl(tmp_path / "hub" / "test.jsonl")
    config = DatasetConfig(name="demo", hub=str(tmp_path / "hub"))
    with open_source(config, StorageConfig(), Path()) as parts:
        rows = {part.split: list(part.rows(FIELDS)) for part in parts}
    assert rows == {split: [(1, RECORDS[0]), (2, RECORDS[1])] for split in ("train", "test")}


def test_a_hub_dataset_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    config = DatasetConfig(name="demo", hub="nobody/nothing")
    with (
        pytest.raises(UserError, match=r"(?s)hub: nobody/nothing cannot be loaded.*'revision'"),
        open_source(config, StorageConfig(), tmp_path),
    ):
        pass


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    return client


def test_an_s3_prefix_an_object_and_a_saved_dataset(bucket: Any, endpoint: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl")
    saved_dataset().save_to_disk(tmp_path / "saved")
    for key in ("data/train.jsonl", "data/deep/test.jsonl", "data/notes.txt"):
        bucket.upload_file(str(tmp_path / "d.jsonl"), "bucket", key)
    for file in (tmp_path / "saved").iterdir():
        bucket.upload_file(str(file), "bucket", f"saved/{file.name}")
    storage = StorageConfig(uri="s3://elsewhere/runs", endpoint_url=endpoint)
    rows = [(1, RECORDS[0]), (2, RECORDS[1])]
    assert read("s3://bucket/data/", tmp_path, storage=storage) == {
        ("s3://bucket/data/deep/test.jsonl", "test"): rows,
        ("s3://bucket/data/train.jsonl", "train"): rows,
    }
    single = "s3://bucket/data/train.jsonl"
    assert read(single, tmp_path, storage=storage) == {(single, "train"): rows}
    assert read("s3://bucket/saved", tmp_path, storage=storage) == {("s3://bucket/saved[train]", "train"): NAMED}


def test_an_object_cannot_be_written_outside_the_temporary_folder(
    bucket: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for key in ("sly/train.jsonl", "sly/../outside.jsonl"):
        bucket.put_object(Bucket="bucket", Key=key, Body=b"{}")
    parts = read("s3://bucket/sly", tmp_path, storage=StorageConfig(endpoint_url=endpoint))
    assert list(parts) == [("s3://bucket/sly/train.jsonl", "train")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("s3://bucket/none.jsonl", "there is no object s3://bucket/none.jsonl\n-> check bucket and key"),
        ("s3://bucket/none/", "file under s3://bucket/none\n-> convert the data"),
        ("s3://nowhere/x", "there is no bucket 'nowhere'"),
    ],
)
def test_s3_sources_that_are_not_there(path: str, what: str, bucket: Any, endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what):
        read(path, tmp_path, storage=StorageConfig(endpoint_url=endpoint))
