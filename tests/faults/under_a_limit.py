"""Extraction or training under RLIMIT_AS, in a process of its own.

python -m tests.faults.under_a_limit WHAT MODEL STORE prints what was said of memory, and how far the result is from one
that had memory enough.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from components.examples import Examples
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.object_store import LocalStore
from components.training import Material, Recipe, fit
from tests.conftest import adapted, plain
from tests.tiny_training import LABEL_TOKENS, toy_examples, weights

ROWS, TOKENS = 1024, 64  # as one batch, several times what LEFT holds
LEFT = 256 * 2**20  # bytes


def limit() -> None:
    """Leave so little memory to this process that a batch of all rows does not fit."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LEFT, resource.RLIM_INFINITY))


def unlimited() -> None:
    """Take the limit away again."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def examples() -> Examples:
    """Rows of equal length."""
    random = np.random.default_rng(0)
    ids = random.integers(1, 120, (ROWS, TOKENS)).tolist()
    return Examples(np.arange(ROWS), ids, np.arange(ROWS) % 2, LABEL_TOKENS)


def extraction(folder: Path) -> tuple[list[str], float]:
    """What was said, and the largest difference to features made in small batches."""
    base, model = adapted(plain(folder))
    said: list[str] = []

    def features(batch_tokens: int) -> np.ndarray:
        projection = Projection(16, 0, "count_sketch", base.device)
        return projected_gradients(model, base, examples(), projection, batch_tokens, said.append).features

    small = features(32 * TOKENS)
    limit()
    short = features(ROWS * TOKENS)
    return said, float(np.abs(short - small).max() / np.abs(small).max())


def training(folder: Path, store: Path) -> tuple[list[str], float]:
    """What was said, and the largest difference to weights trained with memory enough."""
    recipe = Recipe(epochs=1, learning_rate=1e-2, batch_size=ROWS, seed=0)
    said: list[str] = []

    def trained(name: str) -> dict[str, torch.Tensor]:
        base, model = adapted(plain(folder))
        material = [Material(examples(), toy_examples(8, 1))]
        if name == "short":
            limit()
        fit(model, base, material, recipe, LocalStore(store), name, lambda *_: None, say=said.append)
        unlimited()
        return weights(model)

    short, whole = trained("short"), trained("whole")  # what a first one would leave to be used again is no shortage
    return said, max(float((short[name] - weight).abs().max()) for name, weight in whole.items())


if __name__ == "__main__":
    what, model_folder, store_folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    found = extraction(model_folder) if what == "extraction" else training(model_folder, store_folder)
    print(json.dumps(found))
