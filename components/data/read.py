"""Where records come from: files, folders, Hugging Face datasets, an s3:// prefix.

A source is a list of parts, each one file or one published split.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from components.config import DatasetConfig, StorageConfig
from components.errors import UserError, readable
from components.formats import FORMATS, Lines, records, require_columns
from components.object_store import open_store
from components.prepared import SPLITS, SplitName


@dataclass(frozen=True)
class Part:
    """One file, or one split of a Hugging Face dataset.

    Attributes:
        origin: its name in messages.
        split: the published split it is; unsplit data counts as train.
        rows: given the fields that are needed, yields (line or row number from 1, record or problem). Raises
            ``UserError`` where the part as a whole cannot be read.
    """

    origin: str
    split: SplitName
    rows: Callable[[Sequence[str]], Lines]


@contextmanager
def open_source(config: DatasetConfig, storage: StorageConfig, base_dir: Path) -> Iterator[list[Part]]:
    """The parts of a dataset's source; what was downloaded from S3 is gone afterwards.

    Raises:
        UserError: the source is not there, or its splits are not clear.
    """
    if config.hub is not None:
        yield _hugging_face_parts(_from_hub(config), config.hub, config.splits)
    elif (config.path or "").startswith("s3://"):
        with tempfile.TemporaryDirectory(prefix="loraloom-data-") as folder:
            yield _local_parts(_download(config.path or "", storage, Path(folder)), config)
    elif re.match(r"\w+://", config.path or ""):
        raise UserError(f"path: {config.path!r} is no address loraloom can read", remedy="use a local path or s3://")
    else:
        path = base_dir / (config.path or "")
        with readable(config.path or ""):
            parts = _local_parts(path, config)
        yield parts


def _download(uri: str, storage: StorageConfig, folder: Path) -> Path:
    """Copy an object, or all data files under a prefix, into ``folder``."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    is_file = PurePosixPath(name).suffix in FORMATS
    store = open_store(storage.model_copy(update={"uri": parent if is_file else uri}), folder)
    wanted = {*FORMATS, ".arrow", ".json"}  # the last two: a Hugging Face dataset saved on disk
    for key in [name] if is_file else store.keys(""):
        target = (folder / key).resolve()
        if PurePosixPath(key).suffix not in wanted or not target.is_relative_to(folder.resolve()):
            continue
        try:
            store.download(key, target)
        except KeyError:
            raise UserError(f"path: there is no object {store.uri(key)}", remedy="check bucket and key") from None
    return folder / name if is_file else folder


def _local_parts(path: Path, config: DatasetConfig) -> list[Part]:
    """The parts of a file or a folder on this machine; ``config.path`` names it in messages."""
    origin = (config.path or "").rstrip("/")
    if path.is_file():
        if path.suffix not in FORMATS:
            raise UserError(f"path: {origin} is no {_formats()} file", remedy="convert it")
        if config.splits:
            raise UserError(
                "splits: a single file has no published splits", remedy="give a folder, or leave out 'splits'"
            )
        return [Part(origin, "train", partial(records, path, origin))]
    if not path.is_dir():
        raise UserError(f"path: {origin} is not there", remedy="relative paths start at the config file's folder")
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return _hugging_face_parts(_from_disk(path, origin), origin, config.splits)
    files = _data_files(path)
    if not files:
        remedy = "convert the data to one of these, or give another folder"
        raise UserError(f"path: there is no {_formats()} file under {origin}", remedy=remedy)
    names = {file: _split_name(file.relative_to(path), config.splits) for file in files}
    splits = match_splits(names.values(), config.splits)
    used = {file: f"{origin}/{file.relative_to(path).as_posix()}" for file in files if names[file] in splits}
    return [Part(label, splits[names[file]], partial(records, file, label)) for file, label in used.items()]


def _data_files(folder: Path) -> list[Path]:
    """All data files at any depth. A folder that cannot be looked into is an error, not a silent loss of its files."""

    def stop(error: OSError) -> None:
        with readable(str(error.filename)):
            raise error

    walk = os.walk(folder, onerror=stop)
    return sorted(Path(where, name) for where, _, names in walk for name in names if Path(name).suffix in FORMATS)


def _formats() -> str:
    return ", ".join(FORMATS)


def _split_name(path: Path, given: Mapping[SplitName, str] | None) -> str:
    """What a file says of its split: its top folder where that names a split, else its stem without shard number."""
    top = path.parts[0]
    known = {*SPLITS, *(given or {}).values()}
    return top if len(path.parts) > 1 and top in known else re.sub(r"-\d+-of-\d+$", "", path.stem)


def match_splits(names: Iterable[str], given: Mapping[SplitName, str] | None) -> dict[str, SplitName]:
    """Which published part is which split.

    Without a published name among ``names`` everything is unsplit, that is, train. With ``given``, parts that are
    not named there are left out on purpose; without it, a part of unknown role is an error and not a silent loss.

    Raises:
        UserError: a given name does not exist, a part's role is unknown, or there is no train.
    """
    present = sorted(set(names))
    given = given or {}
    if missing := [name for name in given.values() if name not in present]:
        raise UserError(f"splits: there is no {', '.join(missing)}", remedy=f"there are: {', '.join(present)}")
    roles: dict[str, SplitName] = {split: split for split in SPLITS if split not in given}
    roles |= {name: split for split, name in given.items()}
    found = {name: roles[name] for name in present if name in roles}
    if not found:
        return dict.fromkeys(present, "train")
    if not given and (unknown := [name for name in present if name not in found]):
        raise UserError(
            f"splits: what is {', '.join(unknown)} beside {', '.join(found)}?",
            remedy="name the parts to use under 'splits', for example {train: train, test: dev}",
        )
    if "train" not in found.values():
        raise UserError(f"splits: no train among {', '.join(present)}", remedy="name it under 'splits'")
    return found


def _from_hub(config: DatasetConfig) -> Mapping[str, Any]:
    import datasets

    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(config.hub, name=config.subset, revision=config.revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"hub: {config.hub} cannot be loaded: {error}",
            remedy="check the id, 'subset' and 'revision', and that the hub can be reached",
        ) from error
    return loaded


def _from_disk(path: Path, origin: str) -> Mapping[str, Any]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"path: {origin} is no readable saved dataset: {error}", remedy="save it anew with save_to_disk"
        ) from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _hugging_face_parts(loaded: Mapping[str, Any], origin: str, given: Mapping[SplitName, str] | None) -> list[Part]:
    splits = match_splits(loaded, given)
    return [
        Part(f"{origin}[{name}]", splits[name], _table_reader(loaded[name], f"{origin}[{name}]")) for name in splits
    ]


def _table_reader(table: Any, origin: str) -> Callable[[Sequence[str]], Lines]:
    def rows(fields: Sequence[str]) -> Lines:
        require_columns(origin, table.column_names, fields)
        chosen = table.select_columns(list(fields))
        names = {field: getattr(chosen.features[field], "names", None) for field in fields}
        number = 0
        for batch in chosen.iter(batch_size=1000):
            for values in zip(*(batch[field] for field in fields), strict=True):
                number += 1
                named = zip(fields, values, strict=True)
                yield number, {field: _class_name(value, names[field]) for field, value in named}

    return rows


def _class_name(value: Any, names: Sequence[str] | None) -> Any:
    """A class label's name for its number; the hub marks a label that is kept secret by -1."""
    if names is None or value is None:
        return value
    return names[value] if value >= 0 else None
