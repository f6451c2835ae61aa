"""Score a file of any size: in chunks, each kept as soon as it is done, put together at the end.

Finished chunks stand beside the output, in the store the output goes to, so a job that was killed goes on where it was,
and the shards of a job can work in as many pods. Records keep their order; those that cannot be answered go into a file
of their own, with their line and the reason.
"""

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from components.artifacts import digest_of, file_digest
from components.errors import UserError
from components.formats import text_of
from components.object_store import LocalStore, ObjectStore
from components.serving.predict import Mode, Request
from components.serving.records import Record, format_of, read_records, schema_of, write_records
from components.serving.routing import Routes, settled

CHUNK = 512  # records


class Predictor(Routes, Protocol):
    """What scoring asks of an ensemble; see :class:`~components.serving.predict.EnsemblePredictor`."""

    def labels(self, dataset: str) -> list[str]:
        """The labels of ``dataset``, in the order of the probabilities."""

    def fields(self, dataset: str) -> list[str]:
        """The fields that the template of ``dataset`` names. Raises ``UserError`` for an unknown one."""

    def predict_many(self, requests: Sequence[Request], mode: Mode = ...) -> list[np.ndarray]:
        """Label probabilities of each request, float32 [N, C]."""


@dataclass(frozen=True)
class Job:
    """What is scored, and where the answers go.

    Attributes:
        source: the records, on this machine.
        store: where the output goes.
        output: its name there.
        version: of the ensemble.
        dataset: of records that name none; '' leaves those to the router.
    """

    source: Path
    store: ObjectStore
    output: str
    version: str
    mode: Mode = "auto"
    dataset: str = ""

    @cached_property  # it reads the whole source
    def parts(self) -> str:
        """The prefix of finished chunks: another source, version or setting has another."""
        told = digest_of([file_digest(self.source), self.version, self.mode, self.dataset, CHUNK])
        return f"{self.output}.parts/{told[:16]}"


@dataclass(frozen=True)
class Scored:
    """How many records were answered, and how many were not."""

    answered: int
    refused: int


def score(
    job: Job, predictor: Predictor, *, shard: int = 0, shards: int = 1, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Score every ``shards``-th chunk, from ``shard`` on, that is not there yet. ``progress`` gets finished records.

    Raises:
        UserError: the source cannot be read, or ``job.dataset`` or the output's ending is unknown.
    """
    format_of(job.output)
    if job.dataset:
        predictor.fields(job.dataset)  # a wrong name would refuse every record
    for number, chunk in enumerate(_chunks(job.source)):
        if number % shards == shard:
            if not job.store.exists(_key(job, number, "done")):
                _write_chunk(job, number, *answer(predictor, chunk, job.mode, job.dataset))
            progress(len(chunk))


def gather(job: Job) -> Scored:
    """Put the chunks together under the output's name, and forget them.

    Raises:
        UserError: a chunk is missing.
    """
    count = sum(1 for _ in _chunks(job.source))
    missing = [number for number in range(count) if not job.store.exists(_key(job, number, "done"))]
    if missing:
        raise UserError(
            f"{len(missing)} of {count} chunks of {job.store.uri(job.output)} are not scored yet",
            remedy="run the same command again; it goes on from the others",
        )
    with tempfile.TemporaryDirectory(prefix="loraloom-scores-") as folder:
        path, aside = Path(folder) / Path(job.output).name, Path(folder) / "refused.jsonl"
        wanted = format_of(job.output) != ".jsonl"  # which has no columns, and takes whatever a record holds
        schema = schema_of(_read(job, number, "answers") for number in range(count)) if wanted else None
        answered = write_records(_all(job, count, "answers"), schema, path)
        refused = write_records(_all(job, count, "refused"), None, aside)
        job.store.delete(f"{job.output}.bad.jsonl")
        if refused:
            job.store.upload(aside, f"{job.output}.bad.jsonl")
        job.store.upload(path, job.output)
    for key in list(job.store.keys(f"{job.output}.parts/")):
        job.store.delete(key)
    if isinstance(job.store, LocalStore):  # where folders stay without files
        shutil.rmtree(job.store.root / f"{job.output}.parts")
    return Scored(answered, refused)


def answer(
    predictor: Predictor, chunk: Sequence[tuple[int, Record | str]], mode: Mode, dataset: str = ""
) -> tuple[list[Record], list[Record]]:
    """The records of a chunk with ``predicted_label``, ``probability`` and ``dataset``; and those refused, with why."""
    refused: list[Record] = [
        {"line": line, "problem": record, "record": None} for line, record in chunk if isinstance(record, str)
    ]
    records = [(line, record) for line, record in chunk if not isinstance(record, str)]
    names = [str(record.get("dataset") or dataset) for _, record in records]
    texts = [_texts(record) for _, record in records]
    by_dataset: dict[str, list[int]] = {}
    for place, name in enumerate(settled(predictor, names, texts)):
        line, record = records[place]
        if problem := _problem(predictor, name, texts[place]):
            refused.append({"line": line, "problem": problem, "record": record})
        else:
            by_dataset.setdefault(str(name), []).append(place)
    requests = [
        Request(name, {field: [texts[place][field] for place in places] for field in predictor.fields(name)})
        for name, places in by_dataset.items()
    ]
    answers: dict[int, Record] = {}
    for (name, places), found in zip(by_dataset.items(), predictor.predict_many(requests, mode), strict=True):
        labels, best = predictor.labels(name), found.argmax(axis=1)
        for place, column, row in zip(places, best, found, strict=True):
            told = {"dataset": name, "predicted_label": labels[column], "probability": float(row[column])}
            answers[place] = {**records[place][1], **told}
    return [answers[place] for place in sorted(answers)], sorted(refused, key=lambda one: one["line"])


def _problem(predictor: Predictor, name: str | UserError, given: Mapping[str, str]) -> str:
    """Why a record with these texts cannot be answered; '' where it can."""
    if isinstance(name, UserError):
        return name.what
    try:
        lacking = [field for field in predictor.fields(name) if field not in given]
    except UserError as error:
        return error.what
    return f"{name} needs the text fields {', '.join(lacking)}" if lacking else ""


def _texts(record: Record) -> dict[str, str]:
    """The fields that a template may show, by the rule that training rows were read by."""
    texts = {name: text_of(value) for name, value in record.items() if name != "dataset"}
    return {name: text for name, text in texts.items() if text is not None}


def _chunks(source: Path) -> Iterator[list[tuple[int, Record | str]]]:
    records = read_records(source)
    while chunk := list(itertools.islice(records, CHUNK)):
        yield chunk


def _write_chunk(job: Job, number: int, answers: list[Record], refused: list[Record]) -> None:
    for kind, records in (("answers", answers), ("refused", refused)):
        job.store.write(_key(job, number, kind), json.dumps(records, ensure_ascii=False, default=str).encode())
    job.store.write(_key(job, number, "done"), b"")


def _all(job: Job, count: int, kind: str) -> Iterator[Record]:
    return (record for number in range(count) for record in _read(job, number, kind))


def _read(job: Job, number: int, kind: str) -> list[Record]:
    records: list[Record] = json.loads(job.store.read(_key(job, number, kind)))
    return records


def _key(job: Job, number: int, kind: str) -> str:
    return f"{job.parts}/{number:06}.{kind}"
