"""Logits remembered row by row: only what is new goes through the model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.config import ModelConfig
from components.label_logits import logits_label, obtain_logits, passed_logits
from components.prepared import PreparedDataset, Split
from components.step import Step
from components.tables import Logits
from tests.tiny_training import tiny_config


def dataset(rows: list[int], labels: list[int], **changes: Any) -> PreparedDataset:
    split = Split(np.array(rows), {"text": [f"text {row}" for row in rows]}, np.array(labels), None)
    made = PreparedDataset(
        name="mood",
        template="{text}:",
        labels=("negative", "neutral", "positive"),
        words=("bad", "so", "good"),
        metric="accuracy",
        completion=False,
        splits={"train": split, "validation": split, "test": split},
        counts={},
    )
    return replace(made, **changes)


FEW, MORE = dataset([3, 5, 9], [0, 1, 2]), dataset([1, 3, 5, 7, 9], [2, 0, 1, 1, 2])


class Model:
    """Says for a row its id, twice and three times it, plus what tells one model from another; notes what it saw."""

    def __init__(self, data: PreparedDataset, about: float = 0.0) -> None:
        self.row, self.about = data.splits["test"].row, about
        self.asked: list[list[int]] = []

    def __call__(self, index: np.ndarray) -> np.ndarray:
        self.asked.append(self.row[index].tolist())
        return (self.row[index][:, None] * np.array([1, 2, 3]) + self.about).astype(np.float32)


@pytest.fixture
def config(tmp_path: Path) -> str:
    return tiny_config(ModelConfig(id="none"), tmp_path / "store").model_dump_json()


def obtain(config: str, data: PreparedDataset, model: Model, digest: str = "d" * 64, **options: Any) -> Logits:
    with Step("extract", config, "run") as step:
        return obtain_logits(step, digest, data, "test", model, model="start", **options)


def test_all_rows_are_computed_at_first(config: str) -> None:
    model = Model(FEW)
    table = obtain(config, FEW, model)
    assert model.asked == [[3, 5, 9]]
    assert table.row.tolist() == [3, 5, 9]
    assert table.logits.tolist() == [[3, 6, 9], [5, 10, 15], [9, 18, 27]]
    assert table.label.tolist() == [0, 1, 2]


def test_known_rows_are_not_computed_again(config: str) -> None:
    obtain(config, FEW, Model(FEW))
    model = Model(FEW, about=100.0)
    table = obtain(config, FEW, model)
    assert model.asked == []
    assert table.logits.tolist() == [[3, 6, 9], [5, 10, 15], [9, 18, 27]]


def test_of_a_grown_dataset_only_new_rows_are_computed(config: str) -> None:
    obtain(config, FEW, Model(FEW))
    model = Model(MORE, about=100.0)
    table = obtain(config, MORE, model)
    assert model.asked == [[1, 7]]
    assert table.row.tolist() == [1, 3, 5, 7, 9]
    assert table.logits[:, 0].tolist() == [101, 3, 5, 107, 9]
    assert table.label.tolist() == [2, 0, 1, 1, 2]


def test_of_a_shrunken_dataset_nothing_is_computed(config: str) -> None:
    obtain(config, MORE, Model(MORE))
    model = Model(FEW)
    assert obtain(config, FEW, model).row.tolist() == [3, 5, 9]
    assert model.asked == []


def test_rows_of_several_earlier_runs_are_put_together(config: str) -> None:
    for rows in ([3, 5], [7, 9]):
        part = dataset(rows, [0, 1])
        obtain(config, part, Model(part))
    model = Model(MORE)
    obtain(config, MORE, model)
    assert model.asked == [[1]]


def test_corrected_labels_are_taken_without_the_model(config: str) -> None:
    obtain(config, FEW, Model(FEW))
    corrected, model = dataset([3, 5, 9], [2, 1, 0]), Model(FEW)
    table = obtain(config, corrected, model)
    assert model.asked == []
    assert table.label.tolist() == [2, 1, 0]
    assert table.logits[:, 0].tolist() == [3, 5, 9]


@pytest.mark.parametrize(
    "changes",
    [{"template": "{text}?"}, {"words": ("bad", "ok", "good")}, {"name": "other"}],
    ids=["template", "words", "name"],
)
def test_another_rendering_is_computed_wholly(config: str, changes: dict[str, Any]) -> None:
    obtain(config, FEW, Model(FEW))
    other = replace(FEW, **changes)
    model = Model(other, about=100.0)
    assert obtain(config, other, model).logits[:, 0].tolist() == [103, 105, 109]
    assert model.asked == [[3, 5, 9]]


def test_a_text_that_changed_under_the_same_row_id_is_computed_again(config: str) -> None:
    """Row ids are blind to case and spacing; the model is not."""
    obtain(config, FEW, Model(FEW))
    part = FEW.splits["test"]
    edited = replace(part, fields={"text": ["text 3", "TEXT  5", "text 9"]})
    model = Model(FEW)
    obtain(config, replace(FEW, splits=dict.fromkeys(("train", "validation", "test"), edited)), model)
    assert model.asked == [[5]]


def test_a_response_that_changed_is_computed_again(config: str) -> None:
    def answers(*response: str) -> PreparedDataset:
        part = Split(np.array([3, 5]), {"text": ["ask 3", "ask 5"]}, np.array([-1, -1]), list(response))
        splits = dict.fromkeys(("train", "validation", "test"), part)
        return replace(FEW, splits=splits, completion=True, labels=(), words=())

    def two(index: np.ndarray) -> np.ndarray:
        asked.append(index.tolist())
        return np.zeros((len(index), 2), np.float32)

    asked: list[list[int]] = []
    for data in (answers("yes", "no"), answers("yes", "maybe")):
        with Step("extract", config, "run") as step:
            obtain_logits(step, "d" * 64, data, "test", two, model="start")
    assert asked == [[0, 1], [1]]


def test_another_model_is_computed_wholly(config: str) -> None:
    obtain(config, FEW, Model(FEW))
    model = Model(FEW, about=100.0)
    assert obtain(config, FEW, model, digest="e" * 64).logits[0, 0] == 103
    assert model.asked == [[3, 5, 9]]


def test_another_split_is_computed_wholly(config: str) -> None:
    obtain(config, FEW, Model(FEW))
    model = Model(FEW)
    with Step("extract", config, "run") as step:
        obtain_logits(step, "d" * 64, FEW, "validation", model, model="start")
    assert model.asked == [[3, 5, 9]]


def test_some_rows_of_a_split_may_be_asked_for(config: str) -> None:
    model = Model(MORE)
    table = obtain(config, MORE, model, index=np.array([1, 4]))
    assert model.asked == [[3, 9]]
    assert (table.row.tolist(), table.label.tolist()) == ([3, 9], [0, 2])
    assert obtain(config, MORE, model).logits[:, 0].tolist() == [1, 3, 5, 7, 9]
    assert model.asked[1:] == [[1, 5, 7]]


def test_a_completion_dataset_has_two_logits_and_label_one(config: str) -> None:
    split = Split(np.array([3, 5]), {"text": ["a", "b"]}, np.array([-1, -1]), ["yes", "no"])
    data = replace(FEW, completion=True, labels=(), words=(), splits={"test": split})
    with Step("extract", config, "run") as step:
        table = obtain_logits(
            step, "d" * 64, data, "test", lambda index: np.array([[0, 1.5], [0, -2]], np.float32), model="start"
        )
    assert table.label.tolist() == [1, 1]
    assert table.logits.tolist() == [[0, 1.5], [0, -2]]


def test_they_are_passed_on_under_the_models_name(config: str) -> None:
    with Step("extract", config, "run") as step:
        obtain_logits(step, "d" * 64, FEW, "test", Model(FEW), model="group-0")
        assert list(step.made) == [logits_label("group-0", "mood", "test")] == ["logits/group-0/mood/test"]
        references = {label: made.key for label, made in step.made.items()}
        assert passed_logits(step, references, "group-0", "mood", "test").row.tolist() == [3, 5, 9]
        assert step.made["logits/group-0/mood/test"].facts == {"rows": 3, "computed": 3}


def test_the_same_model_under_two_names_is_asked_once(config: str) -> None:
    model = Model(FEW)
    with Step("train", config, "run") as step:
        for name in ("group-0", "group-1"):
            obtain_logits(step, "d" * 64, FEW, "test", model, model=name)
        assert len({made.key for made in step.made.values()}) == 1
    assert model.asked == [[3, 5, 9]]
