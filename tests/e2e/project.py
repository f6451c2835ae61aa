"""A project of a user, very small: a random two-layer Llama, four datasets of 80 rows and a config."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_ensemble import write_base

PARTS = {"train": 40, "validation": 20, "test": 20}
NOUNS = "soup film song game room book road idea shop team play walk".split()
GOOD, BAD = "fine warm kind calm neat".split(), "cold poor rude loud dull".split()
# The second pair of datasets answers the other way round, so that it does not go well with the first.
LABELS = {"film": ("bad", "good"), "food": ("bad", "good"), "mirror": ("good", "bad"), "reverse": ("good", "bad")}


def write_project(folder: Path) -> Path:
    """Write model, data and config under ``folder``; returns the config's path."""
    write_base(folder / "model")
    for number, name in enumerate(LABELS):
        rows = list(sentences(name, number * 100))
        (folder / name).mkdir()
        for part, count in PARTS.items():
            write_rows(folder / name / f"{part}.jsonl", [rows.pop() for _ in range(count)])
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(), sort_keys=False))
    return path


def settings() -> dict[str, Any]:
    """As little of everything as makes every step do something; the first version is always promoted."""
    return {
        "name": "small",
        "model": {"id": "model", "quantization": "none", "dtype": "float32", "device": "cpu", "max_length": 64},
        "lora": {"rank": 4, "alpha": 8},
        "datasets": [{"name": name, "path": name, "template": "{text}\nMood:\n"} for name in LABELS],
        "warm_start": {"samples_per_dataset": 16, "learning_rate": 0.01},
        "gradients": {"dim": 32, "samples_per_dataset": 24},
        "partition": {"groups": 2, "bootstrap": 20},
        "training": {"epochs": 2, "learning_rate": 0.01},
        "boosting": {"steps": 1},
        "ensemble": {"bootstrap": 50},
        "registry": {"margin": 1.0, "floor": 1.0},
    }


def sentences(name: str, first: int) -> Iterable[dict[str, str]]:
    """Rows of the dataset ``name``: the label follows from one adjective. ``first`` makes its texts its own."""
    for number, (noun, pair) in enumerate(itertools.product(NOUNS, zip(GOOD, BAD, strict=True)), start=first):
        for side, word in enumerate(reversed(pair)):
            yield {"text": f"{word} {noun} {number}", "label": LABELS[name][side]}


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Append rows to a JSONL file."""
    with path.open("a") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


def grow(folder: Path, *, train: int, test: int) -> None:
    """Add rows to a dataset that it has not seen."""
    rows = list(sentences(folder.name, 10_000))
    write_rows(folder / "train.jsonl", rows[:train])
    write_rows(folder / "test.jsonl", rows[train : train + test])
