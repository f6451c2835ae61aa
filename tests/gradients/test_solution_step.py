"""The step that the surrogate's solution stands for changes margins as the solution says, but for the projection."""

from pathlib import Path

import numpy as np
import pytest

from components.config import GradientsConfig, ModelConfig, WarmStartConfig
from components.gradients.extract import run as extract
from components.gradients.first_order import derivatives
from components.gradients.solution_step import solution_step
from components.gradients.warm_start import run as warm_start
from components.group_estimator import group_estimator
from components.inputs import features_of, point_of, read_datasets
from components.object_store import LocalStore
from components.on_demand import OnDemand
from components.step import Step, read_references
from components.tables import read_features
from tests.tiny_ensemble import write_base
from tests.tiny_training import publish_datasets, tiny_config, toy_dataset

WIDE = 1600  # so many that the projection keeps inner products well


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


def test_margins_change_along_the_step_as_the_solution_says(model: ModelConfig, tmp_path: Path) -> None:
    datasets = [toy_dataset("mood", seed=1), toy_dataset("tone", seed=2), toy_dataset("turn", seed=3, flipped=True)]
    names, chosen = [dataset.name for dataset in datasets], ["mood", "tone"]
    settings = tiny_config(
        model,
        tmp_path / "store",
        warm_start=WarmStartConfig(samples_per_dataset=16, learning_rate=1e-2),
        gradients=GradientsConfig(dim=WIDE),
    )
    config = settings.model_dump_json()
    publish_datasets(LocalStore(tmp_path / "store"), datasets, tmp_path / "datasets")
    warm_start(config, "run", '{"champion": {}}', tmp_path / "datasets", tmp_path / "start")
    shard = '["mood", "tone", "turn"]'
    extract(config, "run", tmp_path / "datasets", tmp_path / "start", shard, tmp_path / "features")
    with Step("reader", config, "reader") as step:
        prepared = read_datasets(step, read_references(tmp_path / "datasets"))
        features = features_of(step, read_references(tmp_path / "features"), names)
        point, work = point_of(step, read_references(tmp_path / "start")), OnDemand(step)
        adapter = work.trainable(point.folder)
        train = {name: read_features(artifact.folder, "train") for name, artifact in features.items()}
        estimator = group_estimator(step.config, prepared, features)
        solution, change = solution_step(work, adapter, prepared, estimator, train, chosen, 512)
        slopes = derivatives(adapter, work.base, work.examples(prepared["mood"], "validation"), change, 512)[1]
        validation = read_features(features["mood"].folder, "validation")
    told = validation.features @ solution
    assert np.linalg.norm(slopes - told) < 0.2 * np.linalg.norm(told)  # what the projection loses
