"""The step `estimate`: its table belongs to the datasets in the order they are given."""

import json
from pathlib import Path

import numpy as np

from components.artifacts import find, publish
from components.config import ModelConfig
from components.object_store import LocalStore
from components.step import write_references
from components.surrogate.estimate import run
from components.tables import Features, write_features
from tests.tiny_training import publish_datasets, tiny_config, toy_dataset

NAMES = ("a", "b", "c")


def publish_features(store: LocalStore) -> dict[str, str]:
    """Features of three datasets that react differently to company."""
    keys = {}
    for k, name in enumerate(NAMES):
        rng = np.random.default_rng(k)

        def write(folder: Path, k: int = k, rng: np.random.Generator = rng) -> dict[str, int]:
            for split in ("train", "validation"):
                rows = np.arange(40) + 100 * k
                features = rng.normal(size=(40, 6), loc=0.5 * k - 0.4).astype(np.float32)
                write_features(folder, split, Features(rows, features, rng.normal(size=40).astype(np.float32)))
            return {"parameters": 2 * 10**8}  # so many that training is long

        keys[f"features/{name}"] = publish(store, "features", {"of": name}, write).key
    return keys


def estimated(tmp_path: Path, order: tuple[str, ...]) -> np.ndarray:
    """The affinity matrix of the datasets in that order."""
    store = LocalStore(tmp_path / "store")
    config = tiny_config(ModelConfig(id="none"), tmp_path / "store")
    datasets, features, out = (tmp_path / name for name in ("datasets", "features", "".join(order)))
    publish_datasets(store, [toy_dataset(name) for name in order], datasets)
    write_references(features, publish_features(store))
    run(config.model_dump_json(), "-".join(order), datasets, [features], out)
    found = find(store, next(iter(json.loads(out.read_text()).values())))
    assert found is not None and found.facts["datasets"] == list(order)
    return np.array(found.facts["matrix"])


def test_another_order_is_another_table(tmp_path: Path) -> None:
    first, other = estimated(tmp_path, NAMES), estimated(tmp_path, ("c", "a", "b"))
    assert np.abs(first[np.triu_indices(3, 1)]).min() > 1e-3, "the datasets differ"
    back = [("c", "a", "b").index(name) for name in NAMES]
    np.testing.assert_allclose(other[np.ix_(back, back)], first, atol=1e-4)


def test_the_same_order_is_the_same_artifact(tmp_path: Path) -> None:
    np.testing.assert_array_equal(estimated(tmp_path, NAMES), estimated(tmp_path, NAMES))
