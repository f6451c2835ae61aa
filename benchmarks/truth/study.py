"""Estimates against real fine-tunes on real datasets: the tables on ranking, errors, first order, partitions and cost.

python -m benchmarks.truth.study --data DATA --model MODEL

Stopped, the same command goes on; with more --subsets or --seeds it adds to what is there. Progress goes to stdout.
"""

from pathlib import Path
from typing import Any

import typer

from benchmarks.truth import setting
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


def main(
    data: DataOption,
    model: ModelOption,
    root: RootOption = Path(".loraloom/truth"),
    out: OutOption = HERE / "study.json",
    datasets: DatasetsOption = DATASETS,
    train: TrainOption = 300,
    validation: ValidationOption = 400,
    test: TestOption = 400,
    epochs: EpochsOption = 3,
    learning_rate: RateOption = 1e-3,
    quantization: QuantizationOption = "none",
    subsets: int = 24,
    pairs: int = 0,
    partitions: int = 2,
    seeds: int = 3,
) -> None:
    """Run `loraloom validate` on the datasets; print the verdict and keep the numbers."""
    config = setting.settings(
        data,
        model,
        datasets=datasets,
        rows={"train": train, "validation": validation, "test": test},
        epochs=epochs,
        learning_rate=learning_rate,
        quantization=quantization,
        gradients={"samples_per_dataset": 400},
        validation={"subsets": subsets, "pairs": pairs, "partitions": partitions, "seeds": seeds},
    )
    setting.keep(out, study(config, root))


def study(config: dict[str, Any], root: Path) -> dict[str, Any]:
    """Run it; what is worth keeping."""
    summary, seconds = setting.run_until(config, root, "judge")
    found = summary["validation"]
    for sentence in found["verdict"]:
        typer.echo(sentence)
    return {**setting.about(config, summary, seconds), **found}


if __name__ == "__main__":
    typer.run(main)
