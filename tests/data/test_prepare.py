"""From settings to a prepared dataset, and the one error that holds every problem."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.config import DatasetConfig, StorageConfig
from components.data.prepare import prepare
from components.data.split import row_id
from components.errors import UserError
from components.prepared import SPLITS, PreparedDataset, write_prepared

STORAGE = StorageConfig()


def records(start: int, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2], **more} for i in range(start, start + count)]


def write(path: Path, rows: Iterable[dict[str, Any] | str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def folder(base: Path, train: Any = None, validation: Any = None, test: Any = None) -> Path:
    """A folder 'd' with published splits, all of them good by default."""
    write(base / "d" / "train.jsonl", records(0, 40) if train is None else train)
    write(base / "d" / "validation.jsonl", records(100, 10) if validation is None else validation)
    write(base / "d" / "test.jsonl", records(200, 10) if test is None else test)
    return base


def config(path: str = "d", **more: Any) -> DatasetConfig:
    return DatasetConfig(name="demo", path=path, **more)


def problems(base: Path, **more: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        prepare(config(**more), STORAGE, base)
    return caught.value.problems


def where(dataset: PreparedDataset) -> dict[str, str]:
    return {text: split for split in SPLITS for text in dataset.splits[split].fields["text"]}


def test_published_splits(tmp_path: Path) -> None:
    dataset = prepare(config(), STORAGE, folder(tmp_path))
    assert (dataset.labels, dataset.words) == (("no", "yes"), ("no", "yes"))
    assert (dataset.template, dataset.metric, dataset.completion) == ("{text}\nAnswer:", "accuracy", False)
    assert dataset.counts == {"rows": {"train": 40, "validation": 10, "test": 10}, "dropped": {}}
    expected = sorted((row_id({"text": r["text"]}), r["text"], int(r["label"] == "yes")) for r in records(200, 10))
    test = dataset.splits["test"]
    assert list(zip(test.row.tolist(), test.fields["text"], test.label.tolist(), strict=True)) == expected
    assert test.row.dtype == test.label.dtype == np.int64
    assert test.response is None


def test_fields_labels_words_and_template_from_the_settings(tmp_path: Path) -> None:
    rows = [
        {"review": f"r{i}", "reply": f"p{i}", "lang": "en", "stars": i % 2} for i in range(400)
    ]  # integers as labels
    write(tmp_path / "d.jsonl", rows)
    dataset = prepare(
        config(
            "d.jsonl",
            text="review",
            text_pair="reply",
            label="stars",
            labels={"1": "good", "0": "bad"},
            template="[{lang}] {text} / {text_pair}",
            metric="macro_f1",
        ),
        STORAGE,
        tmp_path,
    )
    assert (dataset.labels, dataset.words, dataset.metric) == (("1", "0"), ("good", "bad"), "macro_f1")
    validation = dataset.splits["validation"]
    assert set(validation.fields) == {"lang", "text", "text_pair"}
    assert validation.fields["lang"] == ["en"] * len(validation.row)
    for text, pair, label in zip(
        validation.fields["text"], validation.fields["text_pair"], validation.label, strict=True
    ):
        assert pair[1:] == text[1:]
        assert label == 1 - int(text[1:]) % 2
    assert sum(dataset.counts["rows"].values()) == 400


def test_completion(tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", [{"q": f"{i} + 1 =", "a": i + 1} for i in range(200)])
    dataset = prepare(config("d.jsonl", prompt="q", response="a"), STORAGE, tmp_path)
    train = dataset.splits["train"]
    assert (dataset.completion, dataset.labels, dataset.template) == (True, (), "{prompt}")
    assert set(train.label.tolist()) == {-1}
    assert train.response == [str(int(prompt.split()[0]) + 1) for prompt in train.fields["prompt"]]


def test_a_missing_split_is_carved_from_train(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train.jsonl", records(0, 300))
    write(tmp_path / "d" / "test.jsonl", records(300, 20))
    dataset = prepare(config(), STORAGE, tmp_path)
    rows = {split: dataset.splits[split].row for split in SPLITS}
    assert len(rows["test"]) == 20
    assert len(rows["train"]) + len(rows["validation"]) == 300
    assert (rows["validation"] % 10 == 8).all()
    assert not (rows["train"] % 10 == 8).any()


def test_repeats_are_dropped_and_counted(tmp_path: Path) -> None:
    train = [*records(0, 40), *records(0, 2), {"text": "TEXT  7", "label": "no"}, *records(100, 3), *records(200, 4)]
    dataset = prepare(config(), STORAGE, folder(tmp_path, train=train))
    assert dataset.counts == {
        "rows": {"train": 39, "validation": 10, "test": 10},
        "dropped": {"conflicting": 2, "duplicate": 2, "in_later_split": 7},
    }


def test_max_rows_takes_the_lowest_ids(tmp_path: Path) -> None:
    everything = prepare(config(), STORAGE, folder(tmp_path))
    some = prepare(config(max_rows={"train": 20, "test": 999}), STORAGE, tmp_path)
    assert some.splits["train"].row.tolist() == sorted(everything.splits["train"].row.tolist())[:20]
    assert some.counts == {"rows": {"train": 20, "validation": 10, "test": 10}, "dropped": {"over_max_rows": 20}}


def test_the_order_of_lines_and_files_does_not_reach_the_files(tmp_path: Path) -> None:
    rows = [*records(0, 300), {"text": "TEXT 5", "label": "yes"}]
    write(tmp_path / "one" / "a.jsonl", rows)
    random.Random(1).shuffle(rows)
    write(tmp_path / "two" / "x.jsonl", rows[:100])
    write(tmp_path / "two" / "y.jsonl", rows[100:])
    for name in ("one", "two"):
        (tmp_path / f"{name}-out").mkdir()
        write_prepared(prepare(config(name), STORAGE, tmp_path), tmp_path / f"{name}-out")
    for split in SPLITS:
        assert (tmp_path / "one-out" / f"{split}.parquet").read_bytes() == (
            tmp_path / "two-out" / f"{split}.parquet"
        ).read_bytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.text("abcdefg AB", min_size=1).filter(str.strip), max_size=30), st.integers(0, 2**32))
def test_neither_new_rows_nor_new_labels_move_a_row(tmp_path: Path, new: set[str], seed: int) -> None:
    old = records(0, 250)
    write(tmp_path / "old.jsonl", old)
    write(tmp_path / "more.jsonl", [*old, *({"text": text, "label": "yes"} for text in new)])
    choose = random.Random(seed)
    write(tmp_path / "relabelled.jsonl", [{**row, "label": choose.choice(["no", "yes"])} for row in old])
    home = where(prepare(config("old.jsonl"), STORAGE, tmp_path))
    assert len(home) == 250
    assert home.items() <= where(prepare(config("more.jsonl"), STORAGE, tmp_path)).items()
    assert where(prepare(config("relabelled.jsonl"), STORAGE, tmp_path)) == home


BAD = [
    "{broken",
    {"label": "yes"},
    {"text": " ", "label": "yes"},
    {"text": "fine", "label": "maybe"},
]


def test_bad_rows_are_reported_with_file_and_line(tmp_path: Path) -> None:
    found = problems(folder(tmp_path, train=[*BAD, *records(0, 40)]), labels=["no", "yes"])
    assert found[0].startswith("d/train.jsonl:1: broken JSON")
    assert found[1:] == (
        "d/train.jsonl:2: no field 'text' (there are: label)",
        "d/train.jsonl:3: field 'text' is empty",
        "d/train.jsonl:4: label 'maybe' is not among the labels in the settings (no, yes)",
    )


def test_bad_rows_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    base = folder(tmp_path, train=[*BAD, *records(0, 40)])
    dataset = prepare(config(labels=["no", "yes"], on_bad_rows="drop"), STORAGE, base)
    assert dataset.counts == {
        "rows": {"train": 40, "validation": 10, "test": 10},
        "dropped": {"broken_json": 1, "empty_text": 1, "missing_field": 1, "unknown_label": 1},
    }


def test_a_label_that_train_does_not_have(tmp_path: Path) -> None:
    test = [*records(200, 10), {"text": "odd", "label": "maybe"}]
    assert problems(folder(tmp_path, test=test)) == (
        "d/test.jsonl:11: label 'maybe' is not among the labels of train (no, yes)",
    )
    dataset = prepare(config(on_bad_rows="drop"), STORAGE, tmp_path)
    assert dataset.counts == {"rows": {"train": 40, "validation": 10, "test": 10}, "dropped": {"unknown_label": 1}}


def test_a_rare_label_counts_wherever_its_rows_are_put(tmp_path: Path) -> None:
    """Without published splits all rows are train's, also those that the hash moves elsewhere."""
    rows = records(0, 300)
    moved = next(i for i, row in enumerate(rows) if row_id({"text": row["text"]}) % 10 == 9)
    rows[moved]["label"] = "maybe"
    write(tmp_path / "all.jsonl", rows)
    dataset = prepare(config("all.jsonl"), STORAGE, tmp_path)
    assert dataset.labels == ("maybe", "no", "yes")
    assert dataset.counts["dropped"] == {}
    test = dataset.splits["test"]
    assert test.label[test.fields["text"].index(f"text {moved}")] == 0
    write(tmp_path / "d" / "train.jsonl", rows)  # what is carved out of a published train is train's too
    write(tmp_path / "d" / "validation.jsonl", records(400, 20))
    assert prepare(config(), STORAGE, tmp_path).labels == ("maybe", "no", "yes")


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    base = folder(tmp_path, train=[*records(0, 4), "nonsense"], validation=[], test=[{"text": "", "label": "no"}])
    found = problems(base, labels=["no", "no", "yes"])
    assert found == (
        "labels: 'no' is given twice",
        "train has 4 usable rows; at least 16 are needed",
        "validation has 0 usable rows; at least 8 are needed",
        "test has 0 usable rows; at least 8 are needed",
        "d/test.jsonl:1: field 'text' is empty",
        "d/train.jsonl:5: broken JSON: Expecting value: line 1 column 1 (char 0)",
    )


def test_one_class_is_an_error(tmp_path: Path) -> None:
    base = folder(tmp_path, train=[{**row, "label": "no"} for row in records(0, 40)])
    assert problems(base, labels=["no", "yes"]) == (
        "all rows of train have the same label; at least two classes are needed",
    )


def test_dropping_every_row_says_why(tmp_path: Path) -> None:
    found = problems(folder(tmp_path), text="review", on_bad_rows="drop")
    assert found[0] == "train has 0 usable rows; at least 16 are needed"
    assert "d/train.jsonl:1: no field 'review' (there are: text, label)" in found
    assert "d/train.jsonl: 20 more bad rows" in found


def test_an_unreadable_file_stops_the_run_even_where_bad_rows_are_dropped(tmp_path: Path) -> None:
    base = folder(tmp_path, train=[*records(0, 40), "nonsense"])
    (base / "d" / "test.jsonl").rename(base / "d" / "old")
    (base / "d" / "test.csv").write_text("review,label\na,no\n")
    assert problems(base, on_bad_rows="drop") == (
        "d/test.csv has no column 'text'; its columns are review, label "
        "(each field needs one column of its name: mend the names in the file, or in the config)",
        "d/train.jsonl:41: broken JSON: Expecting value: line 1 column 1 (char 0)",
    )


def test_settings_and_source_are_both_reported(tmp_path: Path) -> None:
    assert problems(tmp_path, path="none", labels=["a"]) == (
        "labels: at least two are needed",
        "path: none is not there (relative paths start at the config file's folder)",
    )
    assert problems(tmp_path, path="none", template="no field") == (
        "template: it shows no field of the record (write {text} where the text belongs)",
    )
