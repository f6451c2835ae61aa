"""Tokens wasted on padding when a dataset's rows are cut into batches."""

import numpy as np

from benchmarks.measure import Row
from benchmarks.setting import base_model, tokenized
from components.config import GradientsConfig
from components.examples import BATCH_TOKENS_WORTH, full_batches, length_batches


def rows() -> list[Row]:
    """All datasets at extraction's least rows and at all rows, each dataset and split batched by itself."""
    base = base_model()
    parts = [part for split in ("train", "validation") for part in tokenized(base, split).values()]
    least = [part.ids[:200] for part in parts]
    return [_waste("200 rows a split", least), _waste("all rows", [part.ids for part in parts])]


def _waste(what: str, parts: list[list[list[int]]]) -> Row:
    real = padded = batches = filled = 0
    budget = GradientsConfig().batch_tokens
    for ids in parts:
        length = np.array([len(row) for row in ids])
        real += int(length.sum())
        for index in length_batches(ids, budget):
            padded += len(index) * int(length[index].max())
            batches += 1
        filled += sum(len(index) * int(length[index].max()) for index in full_batches(ids, budget))
    note = f"{real} real tokens in {batches} batches of at most {budget}; baseline: batches filled to the budget"
    note += f"; a batch is worth {BATCH_TOKENS_WORTH} tokens"
    return Row(f"padding, {what}", padded - real, filled - real, (padded - real) / real, 0.05, unit="tokens", note=note)
