"""The studies' own arithmetic: configs, tables, what is kept. What they measure takes hours."""

from pathlib import Path

import pytest
import typer

from benchmarks.truth import ablations, controls, setting
from components.config import RunConfig

ROWS = {"train": 30, "validation": 20, "test": 20}


def config(**sections: object) -> dict[str, object]:
    return setting.settings(
        Path("data"), Path("model"), datasets="sst2,wic", rows=ROWS, epochs=2, learning_rate=1e-3, quantization="none",
        **sections,
    )  # fmt: skip


def test_a_study_is_a_config_of_the_named_datasets_with_paths_put_in() -> None:
    made = RunConfig.model_validate(config(validation={"subsets": 5}))
    found = [(dataset.name, Path(str(dataset.path)).name) for dataset in made.datasets]
    assert found == [("sst2", "sst2"), ("wic", "wic")]
    assert made.datasets[0].max_rows == ROWS
    assert (made.training.epochs, made.training.patience, made.model.quantization) == (2, 2, "none")
    assert (made.validation.subsets, made.validation.seeds) == (5, 3)  # the rest of a section stays


def test_every_ablation_is_a_valid_config_and_changes_something() -> None:
    base = config()
    for name, change in ablations.CHANGES.items():
        made = RunConfig.model_validate(setting.merged(base, change))
        assert (made == RunConfig.model_validate(base)) == (name == "default"), name


def test_an_unknown_dataset_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="nothing"):
        setting.settings(
            Path("d"), Path("m"), datasets="nothing", rows=ROWS, epochs=1, learning_rate=1e-3, quantization="none"
        )


def test_controls_are_told_by_means_paired_differences_and_relative_flops() -> None:
    def runs(metrics: list[float], flops: int) -> list[dict[str, object]]:
        return [{"metric": one, "loss": 1 - one, "flops": flops, "by_dataset": [one, one]} for one in metrics]

    found = controls.table(
        {
            "multi-task, raw start": runs([0.60, 0.62, 0.61], 100),
            "multi-task": runs([0.61, 0.63, 0.62], 110),
            "ours": runs([0.65, 0.67, 0.66], 150),
        }
    )["rows"]
    assert found["ours"]["relative_flops"] == 1.5
    apart = found["ours"]["against multi-task, raw start"]
    assert apart["value"] == pytest.approx(0.05) and apart["noise"] == pytest.approx(0, abs=1e-9) and apart["clear"]
    assert found["multi-task"]["against multi-task, raw start"]["value"] == pytest.approx(0.01)
    assert found["ours"]["by_dataset"] == pytest.approx([0.66, 0.66])
