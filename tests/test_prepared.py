"""The prepared dataset as an artifact: what is written is read, byte for byte the same, and bound by the digest."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import Artifact, publish
from components.object_store import LocalStore
from components.prepared import SPLITS, PreparedDataset, Split, read_prepared, write_prepared


def classification() -> PreparedDataset:
    split = Split(
        row=np.array([3, 2**63 - 1], np.int64),
        fields={"text": ["one\nline", "zwölf ☂"], "row": ["a field", "called row"]},
        label=np.array([1, 0], np.int64),
        response=None,
    )
    return PreparedDataset(
        name="demo",
        template="{text} {row}",
        labels=("neg", "pos"),
        words=("bad", "good"),
        metric="macro_f1",
        completion=False,
        splits=dict.fromkeys(SPLITS, split),
        counts={"rows": {"train": 2, "validation": 2, "test": 2}, "dropped": {"duplicate": 1}},
    )


def completion() -> PreparedDataset:
    split = Split(
        row=np.array([7], np.int64), fields={"prompt": ["2 + 2 ="]}, label=np.array([-1], np.int64), response=["4"]
    )
    return replace(
        classification(),
        template="{prompt}",
        labels=(),
        words=(),
        completion=True,
        splits=dict.fromkeys(SPLITS, split),
    )


def published(dataset: PreparedDataset, folder: Path) -> Artifact:
    return publish(LocalStore(folder), "dataset", {}, lambda target: write_prepared(dataset, target))


@pytest.mark.parametrize("dataset", [classification(), completion()], ids=["classification", "completion"])
def test_reading_gives_what_was_written(dataset: PreparedDataset, tmp_path: Path) -> None:
    artifact = published(dataset, tmp_path)
    back = read_prepared(artifact)
    assert sorted(artifact.manifest["files"]) == ["test.parquet", "train.parquet", "validation.parquet"]
    assert replace(back, splits={}) == replace(dataset, splits={})
    for name in SPLITS:
        read, written = back.splits[name], dataset.splits[name]
        assert (read.fields, read.response) == (written.fields, written.response)
        assert read.row.dtype == read.label.dtype == np.int64
        assert read.row.tolist() == written.row.tolist()
        assert read.label.tolist() == written.label.tolist()


def test_equal_datasets_have_equal_bytes(tmp_path: Path) -> None:
    first, second = published(classification(), tmp_path / "a"), published(classification(), tmp_path / "b")
    assert first.digest == second.digest
    assert (first.folder / "train.parquet").read_bytes() == (second.folder / "train.parquet").read_bytes()


@pytest.mark.parametrize(
    "change", [{"template": "{row} {text}"}, {"words": ("no", "yes")}, {"labels": ("minus", "plus")}], ids=str
)
def test_what_the_model_sees_changes_the_digest(change: dict[str, Any], tmp_path: Path) -> None:
    changed = replace(classification(), **change)
    assert published(changed, tmp_path / "a").digest != published(classification(), tmp_path / "b").digest


def test_name_and_metric_do_not_change_the_digest(tmp_path: Path) -> None:
    changed = replace(classification(), name="other", metric="accuracy")
    assert published(changed, tmp_path / "a").digest == published(classification(), tmp_path / "b").digest


def test_entropy_is_of_the_labels_present() -> None:
    split = replace(classification().splits["train"], label=np.array([2, 2, 0, 2]))
    dataset = replace(classification(), splits={"train": split, "validation": classification().splits["train"]})
    assert dataset.entropy("train") == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert dataset.entropy() == pytest.approx(math.log(2))
    assert completion().entropy() == 1.0
