"""Extraction in shards, so that a job that was killed goes on where it was.

The rows, sorted by length, are cut into runs of a few batches. The features of each run are an artifact of their own
(manifest last, checksums) under the job's checkpoints; whoever starts the job again takes those that are there. A run
is cut into batches by itself, so its features are the same bytes whether or not the job was interrupted between runs.
The shards go when the dataset's features are published, under the hands of another run at the same work too: that one
makes what it still needs by itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from components.artifacts import digest_of, find, put
from components.errors import UserError
from components.examples import Examples, length_batches
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.language_model import Base
from components.object_store import ObjectStore
from components.step import Step
from components.tables import Features, read_features, write_features

BATCHES_A_SHARD = 16  # what a kill costs at most; writing a shard is a few milliseconds, or one request to a bucket
FILE = "rows"


def sharded_gradients(
    step: Step,
    shelf: str,
    model: PeftModel,
    base: Base,
    examples: Examples,
    projection: Projection,
    batch_tokens: int,
    passed: Callable[[int], None],
) -> Features:
    """:func:`projected_gradients` of M examples, shard by shard.

    Args:
        shelf: where the shards stand in the store; names everything that fixes the features but the rows.
        passed: told how many rows are done with every batch, and with every shard that is there already.
    """
    features = np.zeros((len(examples), projection.dim), dtype=np.float32)
    margin = np.zeros(len(examples), dtype=np.float32)
    for index in shards(examples, batch_tokens):
        part = examples.take(index)
        inputs = {"shelf": shelf, "rows": part.row.tolist(), "batch_tokens": batch_tokens}
        key = f"{shelf}/{digest_of(inputs)[:24]}"
        table = _kept(step.store, key)
        if table is None:
            table = projected_gradients(model, base, part, projection, batch_tokens, say=step.say, passed=passed)
            _keep(step.store, key, inputs, table)
        else:
            passed(len(part))
        features[index], margin[index] = table.features, table.margin
    return Features(examples.row, features, margin)


def _kept(store: ObjectStore, key: str) -> Features | None:
    """A shard that is there, whole; another run that has finished the job may be clearing it away this moment."""
    try:
        shard = find(store, key)
        return None if shard is None else read_features(shard.folder, FILE)
    except (UserError, FileNotFoundError):
        return None


def _keep(store: ObjectStore, key: str, inputs: dict[str, Any], table: Features) -> None:
    def write(folder: Path) -> dict[str, int]:
        write_features(folder, FILE, table)
        return {"rows": len(table.row)}

    put(store, "shard", inputs, write, key=key)


def shards(examples: Examples, batch_tokens: int) -> list[np.ndarray]:
    """Positions of each shard's rows: runs of neighbouring batches."""
    batches = list(length_batches(examples.ids, batch_tokens))
    starts = range(0, len(batches), BATCHES_A_SHARD)
    return [np.concatenate(batches[start : start + BATCHES_A_SHARD]) for start in starts]
