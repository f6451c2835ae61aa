"""Find the base model's files and say what they are, without loading them.

A step must know the base model's digest before it can tell whether its work is already done, so this module imports
neither torch nor transformers.
"""

import functools
import json
from fnmatch import fnmatchcase
from pathlib import Path

from components.artifacts import MANIFEST, digest_of, file_digest, load
from components.config import ModelConfig, StorageConfig
from components.errors import UserError
from components.object_store import ObjectStore, open_store

# What loading needs; weights only as safetensors, because a pickle can run code.
PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
STAGED = "s3://"


def model_folder(model: ModelConfig) -> Path:
    """The folder with the model's files: the local one, or a copy of the staged or the hub model, made on first use.

    Raises:
        UserError: no such model, no network, a damaged file, or no safetensors weights.
    """
    if model.id.startswith(STAGED):
        folder = _fetched(model)
    else:
        folder = Path(model.id) if Path(model.id).is_dir() else _snapshot(model)
    if not (folder / "config.json").is_file():
        raise UserError(f"model.id: {folder} has no config.json", remedy="give a folder in transformers layout")
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"model.id: {folder} has no *.safetensors file",
            remedy="convert the weights to safetensors; loraloom does not load pickled weights",
        )
    return folder


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
def _fetched(model: ModelConfig) -> Path:
    """A verified copy of a staged model on this machine; verified once a process."""
    store, key, folder = _staged(model)
    return load(store, key).folder / folder


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


def _snapshot(model: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=_patterns(model)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model.id: {model.id!r} is neither a local folder nor a hub model in reach ({type(error).__name__})",
            remedy="check the spelling, the revision, the network and HF_TOKEN; or give a local folder",
        ) from error
