"""What tests of training share: toy tasks that a tiny model can learn, and a run's settings on that model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from components.artifacts import Artifact, digest_of, publish
from components.config import DatasetConfig, LoraConfig, ModelConfig, RunConfig, StorageConfig
from components.examples import Examples
from components.object_store import ObjectStore
from components.prepared import SPLITS, PreparedDataset, Split, write_prepared
from components.step import write_references

LORA = LoraConfig(rank=4, alpha=8)
LABEL_TOKENS = [40, 90]
LETTERS = ("abcdefgh", "stuvwxyz")  # texts of label 0 and of label 1
TEMPLATE = "{text}\nMood:\n"


def weights(adapter: PeftModel) -> dict[str, torch.Tensor]:
    """A copy of what is trained."""
    return {name: p.detach().clone() for name, p in adapter.named_parameters() if p.requires_grad}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float) -> None:
    """The same weights by name, each within ``atol``."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def toy_examples(count: int, seed: int, *, noisy: bool = False, first_row: int = 0) -> Examples:
    """Short token sequences whose label says from which dozen of the vocabulary they are; ``noisy``: says nothing."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    ids = [(rng.integers(1, 12, rng.integers(3, 9)) + 120 * one).tolist() for one in label]
    shown = rng.permutation(label) if noisy else label
    return Examples(np.arange(first_row, first_row + count), ids, shown.astype(np.int64), LABEL_TOKENS)


def toy_dataset(
    name: str,
    *,
    rows: tuple[int, int, int] = (32, 16, 16),
    seed: int = 0,
    template: str = TEMPLATE,
    words: tuple[str, str] = ("bad", "good"),
    flipped: bool = False,
) -> PreparedDataset:
    """Texts whose label says from which end of the alphabet their letters are; ``flipped``: the labels swapped."""
    rng = np.random.default_rng(seed)
    splits = {split: _toy_split(rng, count, flipped) for split, count in zip(SPLITS, rows, strict=True)}
    counts = {"rows": dict(zip(SPLITS, rows, strict=True)), "dropped": {}}
    return PreparedDataset(name, template, ("negative", "positive"), words, "accuracy", False, splits, counts)


def _toy_split(rng: np.random.Generator, count: int, flipped: bool) -> Split:
    label = np.arange(count) % 2
    texts = ["".join(rng.choice(list(LETTERS[one]), 6)) for one in label]
    row = np.sort(rng.choice(2**40, count, replace=False)).astype(np.int64)
    return Split(row, {"text": texts}, (1 - label if flipped else label).astype(np.int64), None)


def publish_datasets(store: ObjectStore, datasets: list[PreparedDataset], references: Path) -> dict[str, Artifact]:
    """Put datasets into the store as `prepare` does and write the file that passes them on."""
    made = {
        dataset.name: publish(
            store,
            "dataset",
            {"name": dataset.name, "content": digest_of(repr(dataset))},
            lambda folder, dataset=dataset: write_prepared(dataset, folder),
        )
        for dataset in datasets
    }
    write_references(references, {name: artifact.key for name, artifact in made.items()})
    return made


def tiny_config(model: ModelConfig, store: Path, **sections: Any) -> RunConfig:
    """Settings for runs on the tiny model, artifacts under ``store``."""
    return RunConfig(
        name="tiny",
        model=model,
        lora=LORA,
        datasets=[DatasetConfig(name="mood", path="somewhere")],
        storage=StorageConfig(uri=str(store)),
        **sections,
    )
