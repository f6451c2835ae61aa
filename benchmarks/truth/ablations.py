"""What each choice gains for the estimates and costs: length of the warm start, rate, lambda, dimension, rows.

python -m benchmarks.truth.ablations --data DATA --model MODEL [--only warm_start]

Each setting is a small study of its own under one root; those that leave theta* and training alone share its
fine-tunes. After each the JSON is written, so that a stopped run has left what it found.
"""

import json
from pathlib import Path
from typing import Any

import typer

from benchmarks.truth import setting, study
from benchmarks.truth.setting import (
    DATASETS,
    HERE,
    DataOption,
    DatasetsOption,
    EpochsOption,
    ModelOption,
    OutOption,
    QuantizationOption,
    RateOption,
    RootOption,
    TestOption,
    TrainOption,
    ValidationOption,
)

CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "lambda 1": {"surrogate": {"lambdas": [1.0]}},
    "lambda 0.03": {"surrogate": {"lambdas": [0.03]}},
    "lambda 0.001": {"surrogate": {"lambdas": [0.001]}},
    "dim 100": {"gradients": {"dim": 100}},
    "dim 1600": {"gradients": {"dim": 1600}},
    "rows 100": {"gradients": {"samples_per_dataset": 100}},
    "nf4": {"model": {"quantization": "nf4"}},
    "warm_start 0": {"warm_start": {"epochs": 0}},
    "warm_start 0.25": {"warm_start": {"epochs": 0.25}},
    "warm_start 0.5": {"warm_start": {"epochs": 0.5}},
    "warm_start 2": {"warm_start": {"epochs": 2}},
    "learning_rate 0.0003": {"training": {"learning_rate": 3e-4}},
    "learning_rate 0.002": {"training": {"learning_rate": 2e-3}},
    "rank 4": {"lora": {"rank": 4, "alpha": 8}},
}


def main(
    data: DataOption,
    model: ModelOption,
    root: RootOption = Path(".loraloom/truth"),
    out: OutOption = HERE / "ablations.json",
    only: str = "",
    datasets: DatasetsOption = DATASETS,
    train: TrainOption = 300,
    validation: ValidationOption = 400,
    test: TestOption = 400,
    epochs: EpochsOption = 3,
    learning_rate: RateOption = 1e-3,
    quantization: QuantizationOption = "none",
    subsets: int = 16,
    seeds: int = 3,
) -> None:
    """Run the settings whose name begins with ``only``, and keep a row of each."""
    base = setting.settings(
        data,
        model,
        datasets=datasets,
        rows={"train": train, "validation": validation, "test": test},
        epochs=epochs,
        learning_rate=learning_rate,
        quantization=quantization,
        gradients={"samples_per_dataset": 400},
        validation={"subsets": subsets, "pairs": 0, "partitions": 0, "seeds": seeds},
    )
    found = json.loads(out.read_text()) if out.is_file() else {}
    for name, change in CHANGES.items():
        if name.startswith(only):
            setting.note(name)
            found[name] = row(study.study(setting.merged(base, change), root))
            setting.keep(out, found)


def row(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one setting that the table shows, with what has to stand beside them."""
    kept = ("date", "wall_clock_seconds", "machine", "versions", "settings", "model", "quantization", "rows", "seed")
    ours = found["overall"]["predictors"]["surrogate"]
    return {
        **{key: found[key] for key in kept},
        "seeds": found["seeds"],
        "counts": found["counts"],
        "reliability": found["overall"]["reliability"],
        **ours,
        "partitions": found["partitions"],
        "first_order": found["linearity"]["mean"],
        "estimating_flops": found["cost"]["estimating"]["flops"],
        "verdict": found["verdict"],
    }


if __name__ == "__main__":
    typer.run(main)
