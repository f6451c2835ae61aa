"""Batch scoring: order, bad records, formats, and going on after a kill."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.object_store import LocalStore
from components.serving import scoring
from components.serving.predict import Request
from components.serving.scoring import Job, Scored, gather, score

TEXTS = [f"text {i}" + " good" * (i % 3) for i in range(20)]


class Killed(Exception):
    """Stands for a SIGKILL."""


class Words:
    """Answers by counting the word 'good'; the real ensemble's interface, so that chunks can be told apart cheaply."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.datasets = ["mood", "pair"]
        self.asked: list[str] = []
        self.left = dies_after

    def labels(self, dataset: str) -> list[str]:
        return ["none", "some"]

    def fields(self, dataset: str) -> list[str]:
        if dataset not in self.datasets:
            raise UserError(f"this ensemble has no dataset {dataset!r}")
        return ["text"] if dataset == "mood" else ["text", "text_pair"]

    def route(self, fields: dict[str, list[str]]) -> list[str]:
        if "text" not in fields:
            raise UserError(f"no dataset takes the fields {', '.join(fields)}")
        return ["pair" if "text_pair" in fields else "mood"] * len(fields["text"])

    def predict_many(self, requests: Sequence[Request], mode: str) -> list[Any]:
        if self.left <= 0:
            raise Killed
        self.left -= 1
        texts = [list(request.fields["text"]) for request in requests]
        self.asked += [text for part in texts for text in part]
        share = [np.minimum(np.array([text.count("good") for text in part]) / 2, 0.9) for part in texts]
        return [np.stack([1 - part, part], axis=1) for part in share]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 3)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def job_of(folder: Path, source: Path, output: str = "out.jsonl", **how: Any) -> Job:
    return Job(source, LocalStore(folder), output, "3", **how)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_keep_their_order_and_their_fields(tmp_path: Path) -> None:
    records = [{"id": i, "dataset": ("mood", "pair")[i % 2], "text": t, "text_pair": "x"} for i, t in enumerate(TEXTS)]
    job, seen = job_of(tmp_path, write(tmp_path / "in.jsonl", records)), list[int]()
    score(job, Words(), progress=seen.append)
    assert gather(job) == Scored(20, 0)
    found = lines(tmp_path / "out.jsonl")
    assert [{k: v for k, v in one.items() if k in records[0]} for one in found] == records
    assert [one["predicted_label"] for one in found[:3]] == ["none", "none", "some"]
    assert [one["probability"] for one in found[:3]] == [1.0, 0.5, 0.9]
    assert sum(seen) == 20 and len(seen) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"in.jsonl", "out.jsonl"}


def test_bad_records_go_aside_with_their_line(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        b'{"text": "good"}\n{"text": [5]}\nnot json\n\n[1]\n{"dataset": "weather", "text": "x"}\n'
        b'{"dataset": "pair", "text": "x"}\n{"text": "\xff"}\n{"text": "good", "note": "\\ud800"}\n{"text": "last"}\n'
    )
    job = job_of(tmp_path, source)
    score(job, Words())
    assert gather(job) == Scored(2, 7)
    assert [one["text"] for one in lines(tmp_path / "out.jsonl")] == ["good", "last"]
    bad = {one["line"]: one for one in lines(tmp_path / "out.jsonl.bad.jsonl")}
    assert sorted(bad) == [2, 3, 5, 6, 7, 8, 9]
    for line, message in {
        2: "no dataset takes", 3: "broken JSON", 5: "not a JSON object", 6: "no dataset 'weather'",
        7: "pair needs the text fields text_pair", 8: "byte 11 of the line is not UTF-8",
        9: "not valid UTF-8",
    }.items():  # fmt: skip
        assert message in bad[line]["problem"]
    assert bad[6]["record"] == {"dataset": "weather", "text": "x"}


def test_numbers_are_texts_as_they_were_in_training(tmp_path: Path) -> None:
    records = [{"text": value, "id": 7} for value in (5, 2.5, float("nan"))]
    words, job = Words(), job_of(tmp_path, write(tmp_path / "in.jsonl", records))
    score(job, words)
    assert gather(job) == Scored(2, 1)
    assert words.asked == ["5", "2.5"]
    assert [(one["text"], one["id"]) for one in lines(tmp_path / "out.jsonl")] == [(5, 7), (2.5, 7)]


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    job, first, second = job_of(tmp_path, source), Words(dies_after=4), Words()
    with pytest.raises(Killed):
        score(job, first)
    with pytest.raises(UserError, match="3 of 7 chunks"):
        gather(job)
    assert not (tmp_path / "out.jsonl").exists(), "half an output would look whole"
    score(job, second)
    gather(job)
    assert first.asked + second.asked == TEXTS, "no record twice, none left out"
    assert [one["text"] for one in lines(tmp_path / "out.jsonl")] == TEXTS


def test_another_version_or_source_starts_anew(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    score(job_of(tmp_path, source), Words())
    keys = {job_of(tmp_path, source).parts, job_of(tmp_path, source, mode="exact").parts}
    write(source, [{"text": "changed"}])
    keys.add(job_of(tmp_path, source).parts)
    assert len(keys) == 3
    again = Words()
    score(job_of(tmp_path, source), again)
    assert again.asked == ["changed"]


def test_shards_together_are_the_whole(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    job, workers = job_of(tmp_path, source), [Words() for _ in range(3)]
    for shard in (2, 0, 1):
        score(job, workers[shard], shard=shard, shards=3)
    assert gather(job).answered == 20
    assert [one["text"] for one in lines(tmp_path / "out.jsonl")] == TEXTS
    assert [len(worker.asked) for worker in workers] == [8, 6, 6]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_format_into_every_other(tmp_path: Path, ending: str) -> None:
    source, texts = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS]), ['a "good", one', "naïve\nline"]
    write(source, [{"text": text, "n": str(i)} for i, text in enumerate(texts)])
    first = job_of(tmp_path, source, f"first{ending}")
    score(first, Words())
    gather(first)
    again = job_of(tmp_path, tmp_path / f"first{ending}", "second.jsonl")
    score(again, Words())
    gather(again)
    found = lines(tmp_path / "second.jsonl")
    assert [(one["text"], one["n"], one["predicted_label"]) for one in found] == [
        (texts[0], "0", "none"),
        (texts[1], "1", "none"),
    ]
    if ending == ".parquet":
        assert pq.read_table(tmp_path / "first.parquet")["probability"].to_pylist() == [0.5, 1.0]
    if ending == ".csv":
        with (tmp_path / "first.csv").open(newline="") as file:
            assert next(iter(csv.DictReader(file)))["probability"] == "0.5"


def test_an_ending_that_says_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [])
    with pytest.raises(UserError, match=r"out\.txt is none of"):
        score(job_of(tmp_path, source, "out.txt"), Words())


def test_crooked_csv_lines_go_aside(tmp_path: Path) -> None:
    long = b"x" * 200_000  # longer than the csv module takes unasked
    (tmp_path / "in.csv").write_bytes(b"text,n\n%s,1\nno column\ntoo,many,columns\n\xff,2\nfine,3\n" % long)
    job = job_of(tmp_path, tmp_path / "in.csv")
    score(job, Words())
    assert gather(job) == Scored(2, 3)
    assert [len(one["text"]) for one in lines(tmp_path / "out.jsonl")] == [200_000, 4]
    assert [one["line"] for one in lines(tmp_path / "out.jsonl.bad.jsonl")] == [3, 4, 5]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,text\na,b\n")
    with pytest.raises(UserError, match="more than one column 'text'"):
        score(job_of(tmp_path, tmp_path / "in.csv"), Words())


def test_a_dataset_that_is_not_there_is_told_before_any_record(tmp_path: Path) -> None:
    source, words = write(tmp_path / "in.jsonl", [{"text": "good"}]), Words()
    with pytest.raises(UserError, match="no dataset 'moood'"):
        score(job_of(tmp_path, source, dataset="moood"), words)
    assert words.asked == []
