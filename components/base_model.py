"""Find the base model's files and say what they are, without loading them.

A step must know the base model's digest before it can tell whether its work is already done, so this module imports
neither torch nor transformers.
"""

import functools
from pathlib import Path

from components.artifacts import digest_of, file_digest
from components.config import ModelConfig
from components.errors import UserError

# What loading needs; weights only as safetensors, because a pickle can run code.
PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")


def model_folder(model: ModelConfig) -> Path:
    """The folder with the model's files: the local one, or the hub snapshot (downloaded on first use).

    Raises:
        UserError: no such model, no network, or no safetensors weights.
    """
    folder = Path(model.id)
    if not folder.is_dir():
        folder = _snapshot(model)
    if not (folder / "config.json").is_file():
        raise UserError(f"model.id: {folder} has no config.json", remedy="give a folder in transformers layout")
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"model.id: {folder} has no *.safetensors file",
            remedy="convert the weights to safetensors; loraloom does not load pickled weights",
        )
    return folder


def model_digest(model: ModelConfig) -> str:
    """sha256 over the model's files (names and contents): weights, configuration and tokenizer."""
    folder = model_folder(model)
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    return digest_of({path.name: _digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths})


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


def _snapshot(model: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=list(PATTERNS)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model.id: {model.id!r} is neither a local folder nor a hub model in reach ({type(error).__name__})",
            remedy="check the spelling, the revision, the network and HF_TOKEN; or give a local folder",
        ) from error
