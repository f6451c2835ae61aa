"""Find the base model's files and say what they are, without loading them.

A step must know the base model's digest before it can tell whether its work is already done, so this module imports
neither torch nor transformers.
"""

import functools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from components.artifacts import MANIFEST, digest_of, file_digest, load
from components.config import ModelConfig, StorageConfig
from components.errors import UserError
from components.object_store import ObjectStore, open_store

# What loading needs; weights only as safetensors, because a pickle can run code.
WEIGHTS = "*.safetensors"
PATTERNS = (WEIGHTS, "*.json", "*.model", "*.txt", "*.jinja")
STAGED = "s3://"
CONFIG = "config.json"  # every model has one, and it is small
COMMIT = re.compile(r"[0-9a-f]{40}")


def model_folder(model: ModelConfig) -> Path:
    """The folder with the model's files: the local one, or a copy of the staged or the hub model, made on first use.

    Raises:
        UserError: no such model, no network, a damaged file, or no safetensors weights.
    """
    if model.id.startswith(STAGED):
        folder = _fetched(model)
    else:
        folder = Path(model.id) if Path(model.id).is_dir() else _snapshot(model)
    if not (folder / CONFIG).is_file():
        raise UserError(f"model.id: {folder} has no {CONFIG}", remedy="give a folder in transformers layout")
    if not list(folder.glob(WEIGHTS)):
        raise UserError(
            f"model.id: {folder} has no *.safetensors file",
            remedy="convert the weights to safetensors; loraloom does not load pickled weights",
        )
    return folder


def tokenizer_folder(model: ModelConfig) -> Path:
    """A folder with all of the model's files but, where it has to be fetched, the weights.

    Raises:
        UserError: as :func:`model_folder`.
    """
    if model.id.startswith(STAGED):
        return _fetched(model, weights=False)
    return Path(model.id) if Path(model.id).is_dir() else _snapshot(model, weights=False)


def model_files(model: ModelConfig) -> list[Path]:
    """The files that loading needs, by name; with the model's own code where the config lets it run."""
    folder = model_folder(model)
    return sorted({path for pattern in _patterns(model) for path in folder.glob(pattern)})


def model_digest(model: ModelConfig) -> str:
    """sha256 over the model's files (names and contents): weights, configuration and tokenizer.

    A staged model's is read off its manifest: steps that only need to know the model do not fetch it.
    """
    if model.id.startswith(STAGED):
        digests = _staged_digests(model)
    else:
        digests = {
            path.name: _digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in model_files(model)
        }
    counted = (name for name in digests if any(fnmatchcase(name, pattern) for pattern in PATTERNS))
    return digest_of({name: digests[name] for name in counted})


def model_identity(model: ModelConfig) -> str:
    """What the model's files are, in a word that changes with them; a hub model's weights are not fetched for it.

    A hub commit says what the files are without having them, and a branch stands for the commit that it is at now; a
    folder's files are read (:func:`model_digest`).

    Raises:
        UserError: as :func:`model_folder`.
    """
    if model.id.startswith(STAGED) or Path(model.id).is_dir():
        return model_digest(model)
    pinned = COMMIT.fullmatch(model.revision or "")
    return f"{model.id}@{model.revision if pinned else _hub_commit(model)}"


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:
    """A file's digest, read once a process while its size and time stay: a step asks for it again and again."""
    return file_digest(path)


def model_inputs(model: ModelConfig) -> dict[str, object]:
    """What of the base model goes into an artifact's key: everything that changes its outputs, and no path."""
    return {
        "digest": model_digest(model),
        "quantization": model.quantization,
        "dtype": model.dtype,
        "max_length": model.max_length,
    }


def _staged(model: ModelConfig) -> tuple[ObjectStore, str, str]:
    """Where a staged model is: the store, the artifact's key in it, and the model's folder in the artifact."""
    above, key, _, folder = model.id.rstrip("/").rsplit("/", 3)
    storage = model.storage or StorageConfig()
    return open_store(storage.model_copy(update={"uri": above}), Path()), key, folder


@functools.cache
def _fetched(model: ModelConfig, *, weights: bool = True) -> Path:
    """A verified copy of a staged model on this machine; verified once a process."""
    store, key, folder = _staged(model)
    return load(store, key, None if weights else lambda name: not fnmatchcase(name, WEIGHTS)).folder / folder


@functools.cache
def _staged_digests(model: ModelConfig) -> dict[str, str]:
    """sha256 by file name."""
    store, key, folder = _staged(model)
    try:
        files = json.loads(store.read(f"{key}/{MANIFEST}"))["files"]
    except KeyError:
        raise UserError(
            f"model.id: no staged model at {model.id}",
            remedy="give a local folder or a hub id: a run in containers or on a cluster stages a local one by itself",
        ) from None
    return {name.removeprefix(f"{folder}/"): entry["sha256"] for name, entry in files.items()}


def _patterns(model: ModelConfig) -> list[str]:
    """Which files loading needs; with the model's own code where the config lets it run."""
    return [*PATTERNS, "*.py"] if model.trust_remote_code else list(PATTERNS)


def _snapshot(model: ModelConfig, *, weights: bool = True) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [pattern for pattern in _patterns(model) if weights or pattern != WEIGHTS]
    with _reached(model):
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=wanted))


def _hub_commit(model: ModelConfig) -> str:
    """The commit that the model's revision stands for: by the hub's word, without a network as it was last seen here.

    Asked for by way of the smallest file: so the two cases are told apart just as where the whole model is fetched.
    """
    from huggingface_hub import hf_hub_download

    with _reached(model):
        return Path(hf_hub_download(model.id, CONFIG, revision=model.revision)).parent.name  # snapshots/<commit>/


@contextmanager
def _reached(model: ModelConfig) -> Iterator[None]:
    """Tell the user that there is no such model in reach."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model.id: {model.id!r} is neither a local folder nor a hub model in reach ({type(error).__name__})",
            remedy="check the spelling, the revision, the network and HF_TOKEN; or give a local folder",
        ) from error
