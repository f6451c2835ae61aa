"""Records to be scored: read one by one from JSONL, CSV or Parquet, and answers written in the same formats."""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.formats import FORMATS, Problem, records

Record = dict[str, Any]
BATCH = 1024  # records of a Parquet row group


def format_of(name: str) -> str:
    """The format a file's name ends in. Raises ``UserError`` for any other."""
    suffix = Path(name).suffix
    if suffix not in FORMATS:
        raise UserError(f"{name} is none of {', '.join(FORMATS)}", remedy="give the file one of these endings")
    return suffix


def read_records(path: Path) -> Iterator[tuple[int, Record | str]]:
    """(line or row number from 1, record or what is wrong with it), one at a time.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    format_of(path.name)
    for line, found in records(path, str(path), None):
        yield line, found.what if isinstance(found, Problem) else _sound(dict(found))


def _sound(record: Record) -> Record | str:
    """The record, or what is wrong with it where no file could take it: a broken byte, half of a surrogate pair."""
    try:
        json.dumps(record, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    return record


def write_records(records: Iterable[Record], schema: pa.Schema | None, path: Path) -> int:
    """Write records in the format of the path's ending, and count them; ``schema`` has CSV's and Parquet's columns."""
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
    return writers[format_of(path.name)](records, schema or pa.schema([]), path)


def schema_of(chunks: Iterable[list[Record]]) -> pa.Schema | None:
    """The columns that hold all records of all chunks; None where there are none.

    Raises:
        UserError: a field holds values of types that no column holds together.
    """
    try:
        found = [pa.Table.from_pylist(chunk).schema for chunk in chunks if chunk]
        return pa.unify_schemas(found, promote_options="permissive") if found else None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"the records do not fit into columns: {error}", remedy="write .jsonl, or give each field one type"
        ) from error


def _write_jsonl(records: Iterable[Record], schema: pa.Schema, path: Path) -> int:
    with path.open("w", encoding="utf-8") as lines:
        return sum(1 for record in records if lines.write(json.dumps(record, ensure_ascii=False) + "\n"))


def _write_csv(records: Iterable[Record], schema: pa.Schema, path: Path) -> int:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, schema.names)
        writer.writeheader()
        return sum(1 for record in records if writer.writerow(record))


def _write_parquet(records: Iterable[Record], schema: pa.Schema, path: Path) -> int:
    count, left = 0, iter(records)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(itertools.islice(left, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            count += len(batch)
    return count
