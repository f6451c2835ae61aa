"""Records from a file: JSONL, CSV, Parquet.

A record comes with its line, and a :class:`Problem` in the place of one that cannot be read, so that one broken line
does not hide the others.
"""

import codecs
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError, readable


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row: a reason to count by, and a sentence for the user."""

    reason: str
    what: str


Lines = Iterator[tuple[int, Mapping[str, Any] | Problem]]


def records(path: Path, origin: str, fields: Sequence[str] | None) -> Lines:
    """(line or row number from 1, record or problem) of a file in one of ``FORMATS``.

    Args:
        origin: its name in messages.
        fields: what is needed of each record; None: whatever there is.

    Raises:
        UserError: the file as a whole cannot be read, or lacks a column.
    """
    with readable(origin):
        yield from FORMATS[path.suffix](path, origin, fields)


def _read_jsonl(path: Path, origin: str, fields: Sequence[str] | None) -> Lines:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if content := (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                yield number, _parse_json(content)


def _parse_json(line: bytes) -> Mapping[str, Any] | Problem:
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Problem("wrong_encoding", f"byte {error.start + 1} of the line is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Problem("broken_json", f"broken JSON: {error}")
    return values if isinstance(values, dict) else Problem("broken_json", "not a JSON object")


def _read_csv(path: Path, origin: str, fields: Sequence[str] | None) -> Lines:
    csv.field_size_limit(2**31 - 1)  # the default ends a text at 128 KiB
    # Bytes that are not UTF-8 become lone surrogates, which validation refuses in the fields that are used.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise UserError(f"{origin}:1: {error}", remedy="mend the line of column names") from error
        require_columns(origin, header, header if fields is None else fields)
        while True:
            start = reader.line_num + 1  # a quoted text may span lines: report where the record starts
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield start, Problem("broken_csv", f"broken CSV: {error}")
                continue
            if len(row) == len(header):
                yield start, dict(zip(header, row, strict=True))
            elif row:
                yield start, Problem("broken_csv", f"{len(row)} columns where the header has {len(header)}")


def _read_parquet(path: Path, origin: str, fields: Sequence[str] | None) -> Lines:
    try:
        with pq.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names if fields is None else fields)
            require_columns(origin, file.schema_arrow.names, columns)
            number = 0
            for batch in file.iter_batches(columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's; what Arrow finds wrong with the content has no number
        raise UserError(f"{origin} is no readable Parquet file: {error}", remedy="write it anew") from error


FORMATS: dict[str, Callable[[Path, str, Sequence[str] | None], Lines]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def text_of(value: object) -> str | None:
    """The text that a field's value stands for: a number's is how it is written; None where there is none."""
    if not isinstance(value, str | int | float) or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def require_columns(origin: str, columns: Sequence[str], fields: Sequence[str]) -> None:
    """Raise ``UserError`` unless each of ``fields`` is exactly one of ``columns``."""
    for field in fields:
        if list(columns).count(field) != 1:
            what = "no column" if field not in columns else "more than one column"
            raise UserError(
                f"{origin} has {what} {field!r}; its columns are {', '.join(columns) or 'none'}",
                remedy="each field needs one column of its name: mend the names in the file, or in the config",
            )
