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

Record = dict[str, Any]
FORMATS = (".jsonl", ".csv", ".parquet")
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
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    try:
        yield from readers[format_of(path.name)](path)
    except (OSError, pa.ArrowInvalid, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


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


def _jsonl(path: Path) -> Iterator[tuple[int, Record | str]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Record | str:
    try:
        record = json.loads(line)
    except ValueError as error:  # also a wrong encoding
        return f"no JSON: {error}"
    return record if isinstance(record, dict) else "a JSON object is expected"


def _csv(path: Path) -> Iterator[tuple[int, Record | str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for record in reader:
            crooked = None in record or None in record.values()
            yield reader.line_num, "another number of columns than the header has" if crooked else dict(record)


def _parquet(path: Path) -> Iterator[tuple[int, Record | str]]:
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH):
        for record in batch.to_pylist():
            number += 1
            yield number, record


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
