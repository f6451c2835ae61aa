"""The two distances against slow references and known answers, and what cannot be compared."""

import numpy as np
import pytest

from components.artifacts import Artifact, publish
from components.config import DriftConfig
from components.drift import feature_shift, label_shares, label_shift, measure, warnings
from components.object_store import LocalStore
from components.prepared import PreparedDataset, Split
from components.tables import Features, write_features


def test_the_shift_is_the_unbiased_linear_mmd_over_the_spread():
    random = np.random.default_rng(0)
    now, before = random.normal(2, 1, (7, 3)), random.normal(0, 2, (9, 3))
    within = [
        np.mean([a @ b for i, a in enumerate(side) for j, b in enumerate(side) if i != j]) for side in (now, before)
    ]
    squared = sum(within) - 2 * np.mean([a @ b for a in now for b in before])
    spread = np.mean([np.trace(np.cov(side, rowvar=False)) for side in (now, before)])
    assert squared > 0
    assert feature_shift(now, before) == pytest.approx(np.sqrt(squared / spread))


def test_the_shift_knows_how_far_a_mean_moved_and_forgives_chance():
    random = np.random.default_rng(1)
    rows = random.normal(size=(4000, 5))
    moved = rows[2000:] + np.array([1.5, 0, 0, 0, 0])
    assert feature_shift(moved, rows[:2000]) == pytest.approx(1.5 / np.sqrt(5), abs=0.05)
    assert feature_shift(rows[:2000], rows[:2000]) == 0
    by_chance = [feature_shift(random.normal(size=(200, 5)), random.normal(size=(200, 5))) for _ in range(50)]
    assert max(by_chance) < 0.2
    with pytest.raises(ValueError, match="two rows"):
        feature_shift(rows[:1], rows)


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}, 0.0),
        ({"a": 0.8, "b": 0.2}, {"a": 0.5, "b": 0.5}, 0.3),
        ({"a": 0.5, "c": 0.5}, {"a": 0.5, "b": 0.5}, 0.5),
        ({"a": 1.0}, {"b": 1.0}, 1.0),
    ],
)
def test_label_shift_is_the_share_of_rows_to_relabel(now, before, expected):
    assert label_shift(now, before) == pytest.approx(expected) == label_shift(before, now)


def dataset(label, *, completion=False):
    splits = {
        name: Split(np.arange(len(part)), {"text": ["x"] * len(part)}, np.array(part), None)
        for name, part in zip(("train", "validation", "test"), label, strict=True)
    }
    labels = () if completion else ("no", "yes", "perhaps")
    return PreparedDataset("d", "{text}", labels, labels, "accuracy", completion, splits, {})


def test_label_shares_count_train_and_validation():
    assert label_shares(dataset([[0, 1, 1], [1], [2, 2, 2]])) == {"no": 0.25, "yes": 0.75, "perhaps": 0.0}
    assert label_shares(dataset([[-1], [-1], [-1]], completion=True)) == {}


def features(store: LocalStore, mean: float, theta: str, margin: float = 0) -> Artifact:
    def write(folder):
        for seed, split in enumerate(("train", "validation")):
            values = np.random.default_rng(seed).normal(mean, 1, (50, 4)).astype(np.float32)
            write_features(folder, split, Features(np.arange(50), values, values[:, 0] - mean + margin))
        return {}

    return publish(
        store,
        "features",
        {"outputs": theta, "dim": 4, "projection": "count_sketch", "seed": 0, "m": [mean, margin]},
        write,
    )


def test_measured_against_the_champions_stored_features(tmp_path):
    store = LocalStore(tmp_path)
    before, now, elsewhere = features(store, 0, "t"), features(store, 1, "t", -2), features(store, 1, "another theta*")
    known = {"a": before.key, "b": before.key, "c": before.key, "gone": before.key, "tidied": "features/nowhere"}
    shares = {"no": 0.5, "yes": 0.5}
    facts = {"features": known, "label_shares": dict.fromkeys(known, shares) | {"c": {}}}
    champion = publish(store, "evaluation", {}, lambda _: facts)
    today = {"a": before, "b": now, "c": elsewhere, "tidied": now, "new": now}
    labels = {name: {} if name == "c" else {"no": 0.9, "yes": 0.1} for name in today}
    found = measure(store, champion, today, labels)
    assert set(found) == {"a", "b", "c", "tidied"}, "nothing is said of a dataset that one side lacks"
    assert found["a"] == {"features": 0, "margin": 0, "labels": pytest.approx(0.4)}
    assert found["b"]["features"] == pytest.approx(1.0, abs=0.1), "each of four numbers by 1: 2 / sqrt(4)"
    assert found["b"]["margin"] == pytest.approx(2.0, abs=0.2)
    assert found["c"] == {"features": None, "margin": None, "labels": None}
    assert found["tidied"]["features"] is None and found["tidied"]["labels"] == pytest.approx(0.4)
    older = publish(store, "evaluation", {"older": 1}, lambda _: {"labels": {}})
    assert measure(store, older, today, labels) == {}


def test_only_what_is_beyond_its_threshold_warns():
    settings = DriftConfig(features=0.5, margin=0.4, labels=0.1)
    drift = {
        "calm": {"features": 0.5, "margin": 0.4, "labels": 0.1},
        "moved": {"features": 0.51, "margin": 0.0, "labels": None},
        "both": {"features": None, "margin": 2.0, "labels": 0.25},
    }
    assert warnings(settings, drift) == {
        "moved": ["features moved by 0.51 (limit 0.5)"],
        "both": ["margin moved by 2.00 (limit 0.4)", "labels moved by 0.25 (limit 0.1)"],
    }
