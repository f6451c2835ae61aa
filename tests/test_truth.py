"""The studies' own arithmetic: configs, tables, what is kept. What they measure takes hours."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from benchmarks.truth import ablations, affinities, boosting, calibration, recipes, sizes
from benchmarks.truth.methods import Method, table
from benchmarks.truth.recipes import RECIPES, Recipe
from benchmarks.truth.setting import ABOUT, Setting, about, merged
from components.config import RunConfig
from components.partition.exact import best_partitions
from components.subsets import subset_size


@pytest.fixture
def to(tmp_path: Path) -> Setting:
    return Setting(
        data=Path("data"), model=Path("model"), root=tmp_path, out=tmp_path / "results", datasets=("sst2", "wic"),
        train=30, validation=40, test=20, epochs=2, learning_rate=1e-3, warm_start=1.5, quantization="none",
    )  # fmt: skip


def test_a_study_is_a_config_of_the_named_datasets_with_paths_put_in(to: Setting) -> None:
    made = RunConfig.model_validate(to.config(validation={"subsets": 5}))
    found = [(dataset.name, Path(str(dataset.path)).name) for dataset in made.datasets]
    assert found == [("sst2", "sst2"), ("wic", "wic")]
    assert made.datasets[0].max_rows == {"train": 30, "validation": 40, "test": 20}
    assert (made.training.epochs, made.training.patience, made.model.quantization) == (2, 2, "none")
    assert (made.warm_start.epochs, made.gradients.samples_per_dataset) == (1.5, 40)  # features of every row
    assert (made.validation.subsets, made.validation.seeds) == (5, 3)  # the rest of a section stays


def test_every_ablation_is_a_valid_config_and_changes_something(to: Setting) -> None:
    base = to.config()
    for name, change in ablations.CHANGES.items():
        made = RunConfig.model_validate(merged(base, change))
        assert made != RunConfig.model_validate(base), name


def test_an_unknown_dataset_is_refused(to: Setting) -> None:
    with pytest.raises(typer.BadParameter, match="nothing"):
        replace(to, datasets=("nothing",)).config()


def test_what_is_kept_is_found_again(to: Setting) -> None:
    assert to.kept("sources") == {}
    to.keep("sources", {"sst2": [1.5]})
    assert to.kept("sources") == {"sst2": [1.5]}
    to.add("sources", "wic", {"stop": 0})
    assert to.kept("sources") == {"sst2": [1.5], "wic": {"stop": 0}}


def runs(metrics: list[float], flops: int) -> list[dict[str, object]]:
    return [
        {
            "metric": one,
            "accuracy": one,
            "loss": 1 - one,
            "calibrated": 0.9 - one,
            "flops": flops,
            "by_dataset": [one] * 2,
        }
        for one in metrics
    ]


def test_methods_are_told_by_seeds_paired_differences_and_relative_flops() -> None:
    found = table(
        {
            "multi-task, raw start": runs([0.60, 0.62, 0.61], 100),
            "multi-task": runs([0.61, 0.63, 0.62], 110),
            "ours": runs([0.65, 0.67, 0.66], 150),
        },
        "multi-task, raw start",
        "multi-task",
    )["methods"]
    assert found["ours"]["relative_flops"] == 1.5
    apart = found["ours"]["against multi-task, raw start"]
    assert apart["metric"]["value"] == pytest.approx(0.05) and apart["metric"]["clear"]
    assert apart["metric"]["noise"] == pytest.approx(0, abs=1e-9)
    assert apart["loss"]["value"] == pytest.approx(-0.05)
    assert found["multi-task"]["against multi-task, raw start"]["metric"]["value"] == pytest.approx(0.01)
    assert "against multi-task" not in found["multi-task"]
    assert found["ours"]["by_dataset"] == pytest.approx([0.66, 0.66])


def test_which_members_answer_a_dataset() -> None:
    parts = [(None, ["a"]), (None, ["b", "c"]), (None, [])]
    alone = Method("any", parts)
    assert (alone.answering("a"), alone.answering("c")) == (([parts[0]], 0), ([parts[1]], 0))
    weighted = Method("any", parts, weighted=True)
    assert (weighted.answering("a"), weighted.answering("c")) == ((parts, 0), (parts, 1))


def test_recipes_are_told_by_what_sets_them_apart() -> None:
    recipe = Recipe.parse("0.5:2:0.001:3")
    assert recipe.told() == "0.5 + 2 epochs, rate 0.001, 3 groups"
    assert recipe.raw() == "multi-task, raw start, 3 epochs, rate 0.001"
    assert recipe.multitask() == replace(recipe, groups=4).multitask() == "0.5 + 2 epochs, rate 0.001: multi-task"
    assert recipe.theta() == replace(recipe, epochs=3, learning_rate=1e-2).theta() == "theta*, 0.5 epochs"
    wide = Recipe.parse("1:3:0.001:auto:16")
    assert wide.own() == "1 + 3 epochs, rate 0.001, rank 16, auto groups: own"
    assert wide.raw() == "multi-task, raw start, 4 epochs, rate 0.001, rank 16"
    assert wide.theta() == "theta*, 1 epochs, rank 16"
    assert len({Recipe.parse(text).told() for text in RECIPES}) == len(RECIPES)


@dataclass
class StubbedMembers:
    """Names what would be trained."""

    config: dict[str, Any]
    prepared: Any = field(default_factory=lambda: SimpleNamespace(names=["sst2", "wic"]))

    def trained(self, names: list[str], seed: int) -> str:
        return f"{names} {seed} from theta*"

    def from_raw(self, names: list[str], seed: int) -> str:
        return f"{names} {seed} from nothing, {self.config['training']['epochs']} epochs"


def test_recipes_share_what_they_have_in_common(to: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    run, measured = list[dict[str, Any]](), list[tuple[str, int, list[Any]]]()

    def plan(_: Path, config: dict[str, Any]) -> Any:
        run.append(config)
        told = about(config, {"versions": {}}, 60)
        members = StubbedMembers(config)
        return SimpleNamespace(members=members, groups=[["sst2"], ["wic"]], summary={}, about=lambda: told)

    def count(results: dict[str, Any], members: Any, method: Method, seed: int) -> None:
        row = {**dict.fromkeys(("metric", "accuracy", "loss", "calibrated"), 0.5), "flops": 1, "by_dataset": [0.5]}
        results.setdefault(method.name, []).append(row)
        measured.append((method.name, seed, [part for part, _ in method.parts]))

    monkeypatch.setattr(recipes.Planned, "of", plan)
    monkeypatch.setattr(recipes.Members, "of", lambda config, *_: StubbedMembers(config))
    monkeypatch.setattr(recipes, "add", count)
    to = replace(to, warm_start=1)
    recipes.recipes(to, [Recipe(0.25, 2, 1e-3), Recipe(1, 2, 1e-3), Recipe(1, 2, 1e-2, 1)], seeds=2)
    assert [one["warm_start"]["epochs"] for one in run] == [1, 0.25, 1]  # the default's own, asked for again, runs once
    assert [one["warm_start"]["lookahead"] for one in run] == [1, 1, 1]
    rows = to.kept("recipes")["methods"]
    raw = "multi-task, raw start, 3 epochs, rate 0.001"
    assert list(rows) == [
        raw, "1 + 2 epochs, rate 0.001, auto groups: own", "theta*, 1 epochs", "1 + 2 epochs, rate 0.001: multi-task",
        "0.25 + 2 epochs, rate 0.001, auto groups: own", "theta*, 0.25 epochs",
        "0.25 + 2 epochs, rate 0.001: multi-task",
        "multi-task, raw start, 3 epochs, rate 0.01", "1 + 2 epochs, rate 0.01, 1 groups: own",
        "1 + 2 epochs, rate 0.01: multi-task",
    ]  # fmt: skip
    assert all(len(row["metric"]) == 2 for row in rows.values())
    assert measured[0] == (raw, 0, ["['sst2', 'wic'] 0 from nothing, 3 epochs"])
    assert measured[1][2] == ["['sst2'] 0 from theta*", "['wic'] 0 from theta*"]


def test_a_booster_counts_always_and_where_it_was_kept() -> None:
    def group(kept: bool, loss: list[float]) -> dict[str, object]:
        quantities = {"error": [0.5, 0.4], "loss": loss}
        return {"kept": kept, "measured": {split: {str(kept): quantities} for split in boosting.SPLITS}}

    found = boosting.over_datasets([group(True, [1.0, 0.8]), group(False, [1.0, 1.4])])
    assert found["before"]["test loss"] == pytest.approx(1.0)
    assert found["change"]["always"]["test loss"] == pytest.approx(0.1)
    assert found["change"]["where kept"]["test loss"] == pytest.approx(-0.1)
    assert found["change"]["where kept"]["train error"] == pytest.approx(-0.05)


def calibrated(to: Setting, moved: float, flipped: bool = False) -> dict[str, float]:
    """Errors with 6 of 40 subsets, the estimates being the noiseless truth, moved and perhaps reversed."""
    rng = np.random.default_rng(0)
    cells = []
    for k in range(40):
        for i, name in enumerate(("sst2", "wic")):
            loss = 1 + 0.5 * i + 0.1 * rng.standard_normal()
            told = 3 - loss if flipped else loss
            cells.append(
                {"subset": f"s{k}", "dataset": name, "random": True, "true": [loss] * 2, "surrogate": told + moved}
            )
    cost = {"a_subset": 10.0, "estimating": {"flops": 60.0}}
    study = {"seeds": 2, "subset_size": 2, "seed": 0, "datasets": ["sst2", "wic"], "cells": cells, "cost": cost}
    to.keep("study", {**dict.fromkeys(ABOUT), **study})
    calibration.calibration(to)
    return next(row for row in to.kept("calibration")["rows_of_table"] if row["subsets"] == 6)


def test_a_constant_error_is_put_right_by_a_few_fine_tunes(to: Setting) -> None:
    found = calibrated(to, moved=0.3)
    assert found["estimates"] == pytest.approx((0.3 / 1.0 + 0.3 / 1.5) / 2, rel=0.05)
    assert [found["shifted"], found["scaled"]] == pytest.approx([0, 0], abs=1e-9)
    assert found["means"] == pytest.approx(
        0.8 * 0.1 * (1 / 1.0 + 1 / 1.5) / 2, rel=0.2
    )  # mean size of a normal's noise
    assert found["cost"] == pytest.approx(6 * 2 * 10 / 60)


def test_estimates_that_rank_the_wrong_way_are_scaled_to_nothing(to: Setting) -> None:
    found = calibrated(to, moved=0.0, flipped=True)
    assert found["scaled"] == pytest.approx(found["means"])
    assert found["shifted"] > 1.5 * found["means"]


def test_all_sizes_of_subsets_are_asked_for_about_as_many_losses(to: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"relative_error": {"value": 0.1}}
    overall = {"reliability": None, "noise_error": None, "predictors": {"surrogate": error, "constant": error}}
    to = replace(to, datasets=("sst2", "wic", "cola", "rte", "trec", "subj"))
    made = about(to.config(), {"versions": {}}, 60)
    found = {**made, "subset_size": 4, "counts": {"random": 23}, "seeds": 4, "overall": overall}
    to.keep("study", found)
    asked = list[RunConfig]()

    def stub(_: Setting, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:  # hours of fine-tunes
        asked.append(RunConfig.model_validate(config))
        return found | {"seeds": 2}, {}

    monkeypatch.setattr(sizes, "measured", stub)
    with pytest.raises(typer.BadParameter, match=r"^study\.json in .* is of other training\.epochs: "):
        sizes.sizes(replace(to, epochs=3), [2, 5], each=8, seeds=2)
    with pytest.raises(typer.BadParameter, match="subsets of 4 datasets are in study"):
        sizes.sizes(to, [2, 4], each=8, seeds=2)
    assert not to.kept("sizes")
    sizes.sizes(to, [2, 5], each=8, seeds=2)
    told = [(subset_size(6, one.surrogate.subset_size), one.validation.subsets, one.validation.seeds) for one in asked]
    assert told == [(2, 24, 2), (5, 10, 2)]
    rows = to.kept("sizes")
    with pytest.raises(typer.BadParameter, match=r"^sizes\.json in .* is of other rows and warm_start\.epochs and "):
        replace(to, train=31, warm_start=1).refuse_to_mix("sizes")
    assert [(size, row["seeds"], row["surrogate"]) for size, row in rows.items()] == [
        ("4", 4, error), ("2", 2, error), ("5", 2, error)
    ]  # fmt: skip


def every_subset(n: int) -> np.ndarray:
    return (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def test_a_regression_finds_what_each_dataset_adds_whatever_else_is_there() -> None:
    inside, rng = every_subset(5), np.random.default_rng(0)
    helps = rng.standard_normal((5, 5))
    np.fill_diagonal(helps, 0)
    loss = 2.0 - inside @ helps.T  # dataset i's loss falls by helps[i, j] where j is there
    some = rng.permutation(len(inside))[:24]
    np.testing.assert_allclose(affinities.regression(inside[some], loss[some]), helps, atol=1e-9)


def test_over_all_subsets_means_and_regression_are_the_same_but_for_their_size() -> None:
    inside, rng = every_subset(5), np.random.default_rng(0)
    loss = 2.0 - inside @ (0.1 * rng.standard_normal((5, 5))).T + 0.05 * rng.standard_normal((31, 5))
    found = affinities.matrices(inside, loss, list("abcde"))
    np.testing.assert_allclose(found["means"] * 2, found["regression"], atol=1e-9)  # a mean is of all its company's
    deviation = loss[inside[:, 0], 0].std()
    np.testing.assert_allclose(found["means, standardised"][0] * deviation, found["means"][0], atol=1e-12)


def test_groups_of_the_true_affinity_lose_nothing_and_a_search_mends_a_wrong_one() -> None:
    family = np.array([0, 0, 1])  # three datasets: two groups are the only number between all and one each
    helps = np.where(family[:, None] == family, 0.1, -0.1)
    inside = every_subset(3)
    cost = affinities.costs(inside, 1.0 - inside @ helps.T)
    right, wrong = (affinities.losses(cost, best_partitions(cost), sign * helps, seed=0) for sign in (1, -1))
    assert right["rounded"] == pytest.approx(0, abs=1e-9)
    assert wrong["rounded"] == pytest.approx(4 * 0.1 / 3)  # two that harm each other together, two that help apart
    assert wrong["searched"] == pytest.approx(0, abs=1e-9)


def test_ablations_are_named_so_that_each_can_be_asked_for(to: Setting) -> None:
    assert not any("," in name for name in ablations.CHANGES)
    with pytest.raises(typer.BadParameter, match="unknown settings: dim 3;"):
        ablations.ablations(to, ["one part", "dim 3"], 1, 1)
