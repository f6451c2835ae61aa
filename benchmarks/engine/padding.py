"""Tokens wasted on padding when a dataset's rows are cut into batches."""

import numpy as np

from benchmarks.measure import Row
from benchmarks.setting import base_model, tokenized
from components.config import GradientsConfig
from components.examples import BATCH_TOKENS_WORTH, length_batches


def rows() -> list[Row]:
    """All datasets at extraction's least rows and at all rows, each dataset and split batched by itself."""
    base = base_model()
    parts = [part for split in ("train", "validation") for part in tokenized(base, split).values()]
    least = [part.ids[:200] for part in parts]
    return [_waste("200 rows a split", least), _waste("all rows", [part.ids for part in parts])]


def _waste(what: str, parts: list[list[list[int]]]) -> Row:
    real = padded = batches = greedy = 0
    budget = GradientsConfig().batch_tokens
    for ids in parts:
        length = np.array([len(row) for row in ids])
        real += int(length.sum())
        for index in length_batches(ids, budget):
            padded += len(index) * int(length[index].max())
            batches += 1
        greedy += _full_batches(np.sort(length)[::-1], budget)
    note = f"{real} real tokens in {batches} batches of at most {budget}; baseline: batches filled to the budget"
    note += f"; a batch is worth {BATCH_TOKENS_WORTH} tokens"
    return Row(f"padding, {what}", padded - real, greedy - real, (padded - real) / real, 0.05, unit="tokens", note=note)


def _full_batches(length: np.ndarray, budget: int) -> int:
    """Padded tokens of batches that are filled, from long to short."""
    total = start = 0
    while start < len(length):
        size = max(1, budget // int(length[start]))
        total += min(size, len(length) - start) * int(length[start])
        start += size
    return total
