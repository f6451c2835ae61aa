"""Data that cannot be used, or not as they are: ``loraloom check`` names file, line and remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.project import sentences
from tests.faults.harness import Fault, Sound, copy_of, parametrize, told

Do = Callable[[Sound], object]


def line(*lines: str | bytes, part: str = "train") -> Do:
    """The sound dataset with more lines, the first of them the 41st of train (or the 21st of another part)."""
    return lambda project: project.rows(*lines, part=part)


def row(**record: Any) -> Do:
    """The sound dataset with one more record."""
    return line(json.dumps(record))


def whole(name: str, content: str | bytes, **dataset: Any) -> Do:
    """A file in place of the dataset's folder."""

    def do(project: Sound) -> None:
        (project.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        project.settings({}, path=name, **dataset)

    return do


def settings(**dataset: Any) -> Do:
    """The sound dataset under other settings."""
    return lambda project: project.settings({}, **dataset)


def part(name: str, content: str) -> Do:
    """One file of the sound dataset replaced."""
    return lambda project: (project.film / f"{name}.jsonl").write_text(content)


def labelled(*labels: str, count: int = 60) -> str:
    """Rows that are labelled with each of ``labels`` in turn."""
    return "".join(json.dumps({"text": f"row {i}", "label": labels[i % len(labels)]}) + "\n" for i in range(count))


def parquet(table: pa.Table, name: str = "film.parquet") -> Do:
    def do(project: Sound) -> None:
        pq.write_table(table, project.folder / name)
        project.settings({}, path=name)

    return do


def leak(project: Sound) -> None:
    """Every test row stands in train too, with other spacing and case."""
    rows = [json.loads(text) for text in (project.film / "test.jsonl").read_text().splitlines()]
    project.rows(*(json.dumps({**one, "text": f"  {one['text'].upper()} "}) for one in rows))


FAULTS = [
    # Files.
    Fault(
        "missing",
        settings(path="nowhere"),
        ("nowhere is not there", "relative paths start at the config file's folder"),
    ),
    Fault("unknown-format", whole("film.txt", "text"), ("film.txt is no .jsonl, .csv, .parquet file",)),
    Fault("empty-file", whole("film.jsonl", ""), ("film: train has 0 usable rows; at least 16 are needed",)),
    Fault("empty-csv", whole("film.csv", ""), ("has no column 'text'; its columns are none",)),
    Fault(
        "empty-folder",
        lambda project: [path.unlink() for path in project.film.iterdir()],
        ("there is no .jsonl, .csv, .parquet file under",),
    ),
    Fault("no-parquet", whole("film.parquet", "PAR1 and more"), ("film.parquet is no readable Parquet file",)),
    Fault("half-a-parquet", whole("film.parquet", b"PAR1" + bytes(400)), ("film.parquet is no readable Parquet file",)),
    Fault("utf16", whole("film.jsonl", labelled("a", "b").encode("utf-16")), ("film.jsonl:1: ", "is not UTF-8")),
    Fault(
        "latin1-csv",
        whole("film.csv", b"text,label\n" + b"".join(b"caf\xe9 %d,%d\n" % (i, i % 2) for i in range(60))),
        ("film.csv:2: field 'text' is not valid UTF-8", "40 more bad rows"),
    ),
    Fault(
        "unclear-split",
        part("holdout", labelled("bad", "good")),
        ("what is holdout beside", "name the parts to use under 'splits'"),
    ),
    Fault(
        "split-that-is-not-there",
        settings(splits={"train": "training"}),
        ("there is no training", "there are: test, train, validation"),
    ),
    Fault("address-of-another-kind", settings(path="gs://bucket/x"), ("is no address loraloom can read", "s3://")),
    # Lines.
    Fault("broken-json", line('{"text": "a", '), ("train.jsonl:41: broken JSON",)),
    Fault("json-list", line('["a", "b"]'), ("train.jsonl:41: not a JSON object",)),
    Fault(
        "two-records-on-a-line",
        line('{"text": "a", "label": "bad"}\r{"text": "b", "label": "bad"}'),
        ("train.jsonl:41: broken JSON: Extra data",),
    ),
    Fault("nested-json", line("[" * 100_000), ("train.jsonl:41: broken JSON",)),
    Fault("number-beyond-reason", line('{"text": "a", "label": ' + "9" * 5000 + "}"), ("train.jsonl:41: broken JSON",)),
    Fault("nul-bytes", row(text="a\0b", label="bad"), ("train.jsonl:41: field 'text' holds a NUL character", "UTF-16")),
    Fault(
        "nul-bytes-in-csv",
        whole("film.csv", "text,label\n" + "".join(f"a\0{i},{i % 2}\n" for i in range(200))),
        ("film.csv:2: field 'text' holds a NUL character",),
    ),
    Fault(
        "half-a-surrogate",
        line('{"text": "a\\ud800", "label": "bad"}'),
        ("train.jsonl:41: field 'text' is not valid UTF-8",),
    ),
    Fault(
        "crooked-csv",
        whole("film.csv", "text,label\n" + "a,b,c\n" + "".join(f"t{i},{i % 2}\n" for i in range(60))),
        ("film.csv:2: 3 columns where the header has 2",),
    ),
    Fault(
        "open-quote",
        whole("film.csv", "text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(60)) + '"open,1\n'),
        ("film.csv:62: broken CSV",),
    ),
    # Fields.
    Fault("missing-field", row(label="bad"), ("train.jsonl:41: no field 'text' (there are: label)",)),
    Fault("null-label", row(text="a", label=None), ("train.jsonl:41: field 'label' has no value",)),
    Fault("empty-text", row(text=" \n", label="bad"), ("train.jsonl:41: field 'text' is empty",)),
    Fault("list-for-text", row(text=["a"], label="bad"), ("train.jsonl:41: field 'text' is a list, not a text",)),
    Fault(
        "bytes-for-text",
        parquet(pa.table({"text": [b"\xff"] * 60, "label": ["a", "b"] * 30})),
        ("film.parquet:1: field 'text' is a bytes, not a text",),
    ),
    Fault("fraction-for-a-label", row(text="a", label=0.5), ("train.jsonl:41: label 0.5 is a number with a fraction",)),
    Fault(
        "infinite-label",
        line('{"text": "a", "label": 1e999}'),
        ("train.jsonl:41: label inf is a number with a fraction, not a class",),
    ),
    Fault("template-names-nothing", settings(template="{review}\n"), ("no field 'review' (there are: text, label)",)),
    Fault(
        "template-shows-the-answer",
        settings(template="{text} {label}\n"),
        ("{label} shows the model the answer", "leave it out"),
    ),
    Fault("open-brace", settings(template="{text"), ("template: expected '}'", "write a literal brace twice")),
    Fault(
        "attribute-in-a-template",
        settings(template="{text.__class__}"),
        ("'text.__class__' is not a plain field name",),
    ),
    # Labels.
    Fault(
        "unknown-label",
        lambda project: (project.settings({}, labels=["bad", "good"]), project.rows('{"text": "a", "label": "goood"}')),
        ("train.jsonl:41: label 'goood' is not among the labels in the settings (bad, good)",),
    ),
    Fault(
        "label-that-train-lacks",
        line('{"text": "a", "label": "fair"}', part="test"),
        ("test.jsonl:21: label 'fair' is not among the labels of train",),
    ),
    Fault(
        "labels-that-differ-in-case",
        row(text="a", label="Good"),
        ("labels that differ in case or spacing only: 'Good', 'good'", "'labels'"),
    ),
    Fault(
        "labels-that-differ-in-spacing",
        whole("film.jsonl", labelled("so so", "so  so", "bad", count=300)),
        ("labels that differ in case or spacing only: 'so  so', 'so so'",),
    ),
    Fault("word-given-twice", settings(labels={"bad": "no", "good": "no"}), ("labels: 'no' is given twice",)),
    Fault("empty-word", settings(labels={"bad": " ", "good": "yes"}), ("labels: a word is empty",)),
    Fault("one-label", settings(labels=["bad"]), ("labels: at least two are needed",)),
    Fault(
        "one-class",
        whole("film.jsonl", labelled("good")),
        ("all rows of train have the same label; at least two classes are needed",),
    ),
    Fault(
        "labels-of-a-completion",
        settings(prompt="text", response="label", labels=["bad", "good"]),
        ("labels: a completion dataset has none",),
    ),
    # Numbers of rows.
    Fault("no-validation-rows", part("validation", ""), ("validation has 0 usable rows; at least 8 are needed",)),
    Fault(
        "too-few-rows",
        part("train", labelled("bad", "good", count=6)),
        ("train has 6 usable rows; at least 16 are needed",),
    ),
    Fault(
        "all-rows-contradict",
        lambda project: project.rows(
            *(
                json.dumps({**one, "label": "other"})
                for one in map(json.loads, (project.film / "train.jsonl").read_text().splitlines())
            )
        ),
        ("train has 0 usable rows",),
    ),
    Fault(
        "train-is-the-test",
        lambda project: (project.film / "train.jsonl").write_text((project.film / "test.jsonl").read_text()),
        ("train has 0 usable rows", "20 rows were dropped because they stand in a later split too"),
    ),
]


@parametrize(FAULTS)
def test_data_that_cannot_be_used_are_named_with_file_and_line(fault: Fault, sound: Sound, tmp_path: Path) -> None:
    project = copy_of(sound, tmp_path / "project")
    fault.do(project)
    message = told(project, "check")
    for words in fault.says:
        assert words in message


HARMLESS: list[tuple[str, Do, str]] = [
    ("byte-order-mark", whole("film.jsonl", "\ufeff" + labelled("a", "b", count=200)), "0 2"),
    (
        "mixed-newlines",
        whole("film.jsonl", labelled("a", "b", count=200).replace("\n", "\r\n", 99) + "\r\n\n \n"),
        "0 2",
    ),
    ("ten-megabytes-on-a-line", row(text="long " * 2_000_000, label="bad"), "0 2"),
    ("the-same-row-three-times", line(*['{"text": "again", "label": "bad"}'] * 3), "2 2"),
    ("test-rows-in-train", leak, "20 2"),
    ("a-row-with-two-labels", line('{"text": "torn", "label": "bad"}', '{"text": "torn", "label": "good"}'), "2 2"),
    (
        "labels-as-numbers",
        whole("film.jsonl", "".join(f'{{"text": "t {i}", "label": {i % 2}}}\n' for i in range(200))),
        "0 2",
    ),
]


@pytest.mark.parametrize(("do", "columns"), [pytest.param(*rest, id=name) for name, *rest in HARMLESS])
def test_what_can_be_put_right_is_put_right_and_counted(do: Do, columns: str, sound: Sound, tmp_path: Path) -> None:
    """``columns``: what the table says was dropped, and how many labels there are."""
    project = copy_of(sound, tmp_path / "project")
    do(project)
    code, shown, errors = project.command("check")
    assert (code, errors) == (0, "")
    (told_of,) = [text for text in shown.splitlines() if text.startswith("film ")]
    assert " ".join(told_of.split()[4:6]) == columns


def test_rows_of_a_sound_dataset_are_not_touched(sound: Sound) -> None:
    code, shown, _ = sound.command("check")
    assert code == 0
    assert "film 40 20 20 0 2 accuracy" in " ".join(shown.split())
    assert len(list(sentences("film", 0))) == 120
