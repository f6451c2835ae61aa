"""The point ahead of theta*: where it lies, that gradients are taken there and training begins elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.adapter_files import WEIGHTS
from components.artifacts import Artifact, file_digest
from components.config import GradientsConfig, ModelConfig, WarmStartConfig
from components.gradients import lookahead
from components.gradients.extract import run as extract
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.gradients.warm_start import run as warm_start
from components.inputs import point_of
from components.object_store import LocalStore
from components.on_demand import OnDemand
from components.prepared import PreparedDataset
from components.sampling import sample_rows
from components.step import Step, read_records, read_references
from components.tables import read_features
from components.training import Material, Recipe, fit
from tests.tiny_ensemble import write_base
from tests.tiny_training import publish_datasets, tiny_config, toy_dataset

ROWS, RATE = 16, 1e-2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


class Run:
    """`warm_start` on a store."""

    def __init__(self, model: ModelConfig, folder: Path, datasets: list[PreparedDataset], **warm: Any) -> None:
        settings = WarmStartConfig(samples_per_dataset=ROWS, learning_rate=RATE, **warm)
        config = tiny_config(model, folder / "store", warm_start=settings, gradients=GradientsConfig(dim=64))
        self.config, self.folder, self.datasets = config.model_dump_json(), folder, datasets
        publish_datasets(LocalStore(folder / "store"), datasets, folder / "datasets")
        warm_start(self.config, "run", '{"champion": {}}', folder / "datasets", folder / "start")
        self.references = read_references(folder / "start")

    def load(self, label: str) -> Artifact:
        with Step("reader", self.config, "reader") as step:
            return step.load(self.references, label)


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.folder / WEIGHTS)


def some() -> list[PreparedDataset]:
    return [toy_dataset("mood", seed=1), toy_dataset("tone", seed=2)]


def test_the_point_is_halfway_between_theta_and_the_end_of_the_pass(model: ModelConfig, tmp_path: Path) -> None:
    made = Run(model, tmp_path, some(), epochs=2, lookahead=3)
    theta, point = made.load("start"), made.load("point")
    with Step("slow", made.config, "slow") as step:
        work = OnDemand(step)
        adapter = work.trainable(theta.folder)
        material = []
        for dataset in made.datasets:
            rows = work.examples(dataset, "train")
            rows = rows.take(sample_rows(rows.row, ROWS, step.config.seed))
            material.append(Material(rows, work.examples(dataset, "validation")))
        recipe = Recipe(
            epochs=3,
            learning_rate=RATE,
            batch_size=step.config.training.batch_size,
            seed=step.config.seed + 1,
            warmup_ratio=step.config.training.warmup_ratio,
        )
        fit(adapter, work.base, material, recipe, LocalStore(tmp_path / "other"), "slow", lambda *_: None)
        end = {name.replace(".default", ""): weight.detach() for name, weight in adapter.named_parameters()}
    moved = 0.0
    for name, weight in weights(point).items():
        torch.testing.assert_close(weight, (weights(theta)[name] + end[name]) / 2, rtol=0, atol=1e-6)
        moved = max(moved, float((weight - weights(theta)[name]).abs().max()))
    assert moved > 1e-3
    assert point.facts["rows"] == 3 * 2 * ROWS and set(point.facts["datasets"]) == {"mood", "tone"}
    record = read_records(LocalStore(tmp_path / "store"), "run")[0]
    assert record["flops"] == theta.facts["flops"] + point.facts["flops"]


def test_without_a_look_ahead_gradients_are_taken_at_theta(model: ModelConfig, tmp_path: Path) -> None:
    made = Run(model, tmp_path / "none", some(), epochs=1, lookahead=0)
    assert "point" not in made.references
    with Step("reader", made.config, "reader") as step:
        assert point_of(step, made.references).key == made.references["start"]
    ahead = Run(model, tmp_path / "ahead", some(), epochs=1)
    with Step("reader", ahead.config, "reader") as step:
        assert point_of(step, ahead.references).key == ahead.references["point"]
    # Every adapter begins at theta*, so looking ahead leaves none invalid.
    assert ahead.load("start").digest == made.load("start").digest
    assert ahead.load("point").facts["rows"] == made.load("start").facts["rows"]  # by default as many epochs


def test_the_raw_start_is_not_left_unless_asked_for(model: ModelConfig, tmp_path: Path) -> None:
    assert "point" not in Run(model, tmp_path / "raw", some(), epochs=0).references
    asked = Run(model, tmp_path / "asked", some(), epochs=0, lookahead=1)
    there, raw = weights(asked.load("point")), weights(asked.load("start"))
    assert not any(weight.any() for name, weight in raw.items() if "lora_B" in name)
    assert all(weight.any() for name, weight in there.items() if "lora_B" in name)


def test_the_point_stays_with_theta_when_datasets_change(model: ModelConfig, tmp_path: Path) -> None:
    first = Run(model, tmp_path, some(), epochs=1)
    second = Run(model, tmp_path, [*some()[:1], toy_dataset("tone", seed=3)], epochs=1)
    assert second.references == first.references
    other = Run(model, tmp_path, some(), epochs=1, lookahead=2)
    assert other.references["start"] == first.references["start"]
    assert other.references["point"] != first.references["point"]


def test_nothing_of_a_dataset_is_in_the_point_that_theta_was_not_made_of(model: ModelConfig, tmp_path: Path) -> None:
    three = [*some(), toy_dataset("tune", seed=4)]
    first = Run(model, tmp_path / "four", three, epochs=6, lookahead=0)
    added = Run(model, tmp_path / "four", [*three, toy_dataset("turn", seed=5)], epochs=6, lookahead=1)
    assert added.references["start"] == first.references["start"]
    assert set(added.load("point").facts["datasets"]) == {"mood", "tone", "tune"}
    assert digest(added.load("point")) == digest(
        Run(model, tmp_path / "three", three, epochs=6, lookahead=1).load("point")
    )


def test_a_new_raw_start_has_a_new_point(model: ModelConfig, tmp_path: Path) -> None:
    both = Run(model, tmp_path, some(), epochs=0, lookahead=1)
    one = Run(model, tmp_path, some()[:1], epochs=0, lookahead=1, renew=True)
    assert digest(one.load("start")) == digest(both.load("start"))
    assert one.references["point"] != both.references["point"]
    assert set(one.load("point").facts["datasets"]) == {"mood"}


def test_a_killed_pass_goes_on_with_its_own_datasets_only(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[str] = []

    def killed(*arguments: Any) -> None:
        jobs.append(arguments[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(lookahead, "multitask_pass", killed)
    for datasets in (some(), some(), [*some()[:1], toy_dataset("tone", seed=9)]):
        with pytest.raises(KeyboardInterrupt):
            Run(model, tmp_path, datasets, epochs=1)
    assert jobs[0] == jobs[1] != jobs[2]


def digest(adapter: Artifact) -> str:
    return file_digest(adapter.folder / WEIGHTS)


def test_features_are_gradients_at_the_point_and_logits_those_of_theta(model: ModelConfig, tmp_path: Path) -> None:
    made = Run(model, tmp_path, some(), epochs=1)
    extract(made.config, "run", tmp_path / "datasets", tmp_path / "start", '["mood"]', tmp_path / "features")
    references = read_references(tmp_path / "features")
    with Step("slow", made.config, "slow") as step:
        features = read_features(step.load(references, "features/mood").folder, "train")
        work, mood = OnDemand(step), made.datasets[0]
        examples, projection = (
            work.examples(mood, "train"),
            Projection(64, step.config.seed, "count_sketch", torch.device("cpu")),
        )
        there = {
            label: projected_gradients(work.adapter(made.load(label).folder), work.base, examples, projection, 512)
            for label in ("start", "point")
        }
    np.testing.assert_array_equal(features.row, there["point"].row)
    np.testing.assert_allclose(features.features, there["point"].features, rtol=0, atol=1e-4)
    np.testing.assert_allclose(features.margin, there["point"].margin, rtol=0, atol=1e-5)
    assert np.abs(features.margin - there["start"].margin).max() > 1e-2
