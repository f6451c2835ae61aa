"""The steps `select` and `confirm` on features made up: references in, jobs and facts out."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import publish
from components.config import DatasetConfig, ModelConfig, RunConfig, SelectionConfig
from components.errors import UserError
from components.object_store import LocalStore
from components.selection import select
from components.step import read_records, write_references
from components.tables import write_features
from tests.selection.test_forward import planted
from tests.tiny_training import publish_datasets, tiny_config, toy_dataset

KINDS = {"few": 1.0, "kin": 1.0, "foe": -1.0}


def configured(store: Path, target: str | None) -> RunConfig:
    datasets = [DatasetConfig(name=name, path="somewhere") for name in KINDS]
    selection = SelectionConfig(target=target, subsets=8, seeds=2)
    config = tiny_config(ModelConfig(id="none"), store)
    return config.model_copy(update={"datasets": datasets, "selection": selection})


def publish_features(store: LocalStore) -> dict[str, str]:
    keys, rng = {}, np.random.default_rng(0)
    for name, kind in KINDS.items():

        def write(folder: Path, name: str = name, kind: float = kind) -> dict[str, int]:
            write_features(folder, "train", planted(rng, 14 if name == "few" else 150, kind))
            write_features(folder, "validation", planted(rng, 200, kind))
            return {"parameters": 2 * 10**8}  # so many that training is long

        keys[f"features/{name}"] = publish(store, "features", {"of": name}, write).key
    return keys


def chosen(tmp_path: Path, target: str | None) -> list[str]:
    store = LocalStore(tmp_path / "store")
    publish_datasets(store, [toy_dataset(name) for name in KINDS], tmp_path / "datasets")
    write_references(tmp_path / "features", publish_features(store))
    config = configured(tmp_path / "store", target).model_dump_json()
    return select.run(config, "run", tmp_path / "datasets", [tmp_path / "features"], tmp_path / "out")


def test_the_jobs_are_the_target_alone_with_the_chosen_and_with_all(tmp_path: Path) -> None:
    jobs = [json.loads(job) for job in chosen(tmp_path, "few")]
    assert {job["name"]: job["datasets"] for job in jobs} == {
        "none": ["few"],
        "chosen": ["few", "kin"],
        "all": ["few", "kin", "foe"],
    }
    assert all(job["seeds"] == [0, 1] for job in jobs)
    (record,) = read_records(LocalStore(tmp_path / "store"), "run")
    facts = record["facts"]["selection"]
    assert (facts["chosen"], facts["stop"], [one["name"] for one in facts["order"]]) == (["kin"], 1, ["kin", "foe"])
    assert facts["order"][0]["loss"] < facts["alone"] < facts["everything"]


def test_a_set_that_is_another_one_is_no_job_of_its_own(tmp_path: Path) -> None:
    jobs = {job["name"]: job["datasets"] for job in map(json.loads, chosen(tmp_path, "foe"))}
    assert jobs == {"none": ["foe"], "all": ["few", "kin", "foe"]}


def test_without_a_target_it_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are few, kin, foe"):
        chosen(tmp_path, None)
