"""The label tokens of a dataset, from the tokenizer alone: no weights are loaded, nor fetched."""

from typing import Any

from components.base_model import tokenizer_folder
from components.config import ModelConfig
from components.prepared import PreparedDataset
from components.prompts import label_tokens


def known_label_tokens(model: ModelConfig, dataset: PreparedDataset) -> list[int]:
    """The token of each label; empty for a completion dataset."""
    if dataset.completion:
        return []
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder(model), trust_remote_code=model.trust_remote_code)
    return label_tokens(dataset.words, dataset.template, tokenizer)[0]
