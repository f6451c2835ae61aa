"""Tokenized records of one or several datasets, and how they are cut into batches.

Sequences are padded on the right. Attention is causal, so nothing before the padding ever sees it and no attention
mask is needed: the fast attention kernels apply, and padded positions get no gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from components.prompts import encode, label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from components.prepared import PreparedDataset, SplitName

# What a batch costs besides its tokens, in tokens: the time of its launches and hooks, measured in benchmarks/engine.
BATCH_TOKENS_WORTH = 32


@dataclass(frozen=True)
class Examples:
    """N tokenized records of one split of one dataset.

    Attributes:
        row: [N] row ids.
        ids: N lists of token ids.
        label: [N] index of the right answer among the label tokens; 1 for completion records.
        label_tokens: the C tokens that stand for the labels; empty for a completion dataset.
        response_start: N positions where the response begins; None for classification.
        truncated: how many prompts were cut.
        notes: what was decided about label words, to be said aloud.
    """

    row: np.ndarray
    ids: list[list[int]]
    label: np.ndarray
    label_tokens: list[int]
    response_start: list[int] | None = None
    truncated: int = 0
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int] | np.ndarray) -> "Examples":
        """The examples at the given positions."""
        starts = self.response_start
        return Examples(
            self.row[index],
            [self.ids[i] for i in index],
            self.label[index],
            self.label_tokens,
            [starts[i] for i in index] if starts is not None else None,
        )


@dataclass(frozen=True)
class Batch:
    """B examples as tensors, possibly of several datasets.

    Attributes:
        input_ids: [B, T] right-padded token ids.
        length: [B] real tokens a row.
        label_tokens: [B, C] token ids of the labels, -1 where a row has fewer than C.
        label: [B] index of the right answer.
        response_start: [B] first position of the response, -1 for classification rows.
    """

    input_ids: torch.Tensor
    length: torch.Tensor
    label_tokens: torch.Tensor
    label: torch.Tensor
    response_start: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def tokenize(
    dataset: "PreparedDataset", split: "SplitName", tokenizer: "PreTrainedTokenizerFast", max_length: int
) -> Examples:
    """The examples of one split. Raises ``UserError`` where a prompt cannot fit (see :func:`prompts.encode`)."""
    part = dataset.splits[split]
    encoded = encode(dataset.template, part.fields, tokenizer, max_length, part.response)
    if dataset.completion:
        label = np.ones(len(part.row), dtype=np.int64)
        return Examples(part.row, encoded.ids, label, [], encoded.response_start, encoded.truncated)
    tokens, notes = label_tokens(dataset.words, dataset.template, tokenizer)
    return Examples(part.row, encoded.ids, part.label, tokens, None, encoded.truncated, notes)


def collate(rows: Sequence[tuple[Examples, int]]) -> Batch:
    """One batch from (examples, position) pairs."""
    length = [len(examples.ids[i]) for examples, i in rows]
    classes = max(2, *(len(examples.label_tokens) for examples, _ in rows))
    input_ids = torch.zeros(len(rows), max(length), dtype=torch.long)
    tokens = torch.full((len(rows), classes), -1, dtype=torch.long)
    for b, (examples, i) in enumerate(rows):
        input_ids[b, : length[b]] = torch.tensor(examples.ids[i])
        tokens[b, : len(examples.label_tokens)] = torch.tensor(examples.label_tokens, dtype=torch.long)
    starts = [examples.response_start[i] if examples.response_start is not None else -1 for examples, i in rows]
    label = torch.tensor([int(examples.label[i]) for examples, i in rows])
    return Batch(input_ids, torch.tensor(length), tokens, label, torch.tensor(starts))


def length_batches(ids: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[np.ndarray]:
    """Positions of similar length, each batch within ``batch_tokens`` tokens, padding included (at least one row).

    Of all ways to cut the rows, sorted from long to short, into batches, this is the one that costs least: a batch's
    cost is its tokens, padding included, and :data:`BATCH_TOKENS_WORTH`. Found from the short end by dynamic
    programming, ``least[i] = min_j (j - i) length_i + c + least[j]``.
    """
    order = np.argsort([len(row) for row in ids], kind="stable")[::-1]
    count, length = len(order), np.array([max(1, len(ids[i])) for i in order], dtype=np.int64)
    least, following = np.zeros(count + 1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for i in range(count - 1, -1, -1):
        most = min(count - i, max(1, batch_tokens // int(length[i])))
        costs = length[i] * np.arange(1, most + 1) + BATCH_TOKENS_WORTH + least[i + 1 : i + most + 1]
        best = int(costs.argmin())
        least[i], following[i] = costs[best], i + best + 1
    start = 0
    while start < count:
        yield order[start : following[start]]
        start = int(following[start])


def full_batches(ids: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[np.ndarray]:
    """The same rows in as few batches as the budget allows, from long to short, whatever the padding."""
    order = np.argsort([len(row) for row in ids], kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, len(ids[order[start]])))
        yield order[start : start + size]
        start += size
