"""Choosing data sources for a target, checked by real fine-tunes.

python -m benchmarks.truth.sources --data DATA --model MODEL --targets sst2,tweet_offensive
"""

from pathlib import Path

import typer
from rich.console import Console

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
from pipelines.show_selection import show_selection


def main(
    data: DataOption,
    model: ModelOption,
    root: RootOption = Path(".loraloom/truth"),
    out: OutOption = HERE / "sources.json",
    targets: DatasetsOption = "sst2,tweet_offensive",
    datasets: DatasetsOption = DATASETS,
    train: TrainOption = 300,
    validation: ValidationOption = 400,
    test: TestOption = 400,
    epochs: EpochsOption = 3,
    learning_rate: RateOption = 1e-3,
    quantization: QuantizationOption = "none",
    seeds: int = 3,
) -> None:
    """Run `loraloom select --validate` for each target; print the tables and keep the numbers."""
    found = {}
    for target in targets.split(","):
        config = setting.settings(
            data,
            model,
            datasets=datasets,
            rows={"train": train, "validation": validation, "test": test},
            epochs=epochs,
            learning_rate=learning_rate,
            quantization=quantization,
            gradients={"samples_per_dataset": 400},
            selection={"target": target, "seeds": seeds},
        )
        summary, seconds = setting.run_until(config, root, "confirm")
        show_selection(Console(), summary["selection"])
        found[target] = {**setting.about(config, summary, seconds), **summary["selection"]}
        setting.keep(out, found)


if __name__ == "__main__":
    typer.run(main)
