"""What the tokenizer alone tells, without the weights (none are fetched): itself, and the label tokens of a dataset."""

from pathlib import Path
from typing import Any

from components.base_model import tokenizer_folder
from components.config import ModelConfig
from components.errors import UserError
from components.prepared import PreparedDataset
from components.prompts import label_tokens


def load_tokenizer(model: ModelConfig, folder: Path) -> Any:
    """The tokenizer in ``folder``.

    Raises:
        UserError: it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # the tokenizers library raises Exception itself
        raise UserError(
            f"model.id: the tokenizer in {folder} cannot be loaded: {type(error).__name__}: {error}",
            remedy="copy the tokenizer's files beside the weights; one with code of its own needs "
            "model.trust_remote_code: true",
        ) from error


def known_label_tokens(model: ModelConfig, dataset: PreparedDataset) -> list[int]:
    """The token of each label; empty for a completion dataset."""
    if dataset.completion:
        return []
    tokenizer = load_tokenizer(model, tokenizer_folder(model))
    return label_tokens(dataset.words, dataset.template, tokenizer)[0]
