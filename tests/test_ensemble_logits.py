"""The ensemble's logits against plain loops."""

from pathlib import Path

import numpy as np
import pytest

from components.config import BoostingConfig, ModelConfig
from components.ensemble_logits import boosters_of, ensemble_logits, has_logits, member_logits, start_logits
from components.label_logits import logits_label
from components.step import Step
from components.tables import Logits, write_logits
from tests.tiny_training import tiny_config

RNG = np.random.default_rng(0)
START, GROUPS = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 5, 3))
SIMPLEX = np.array([0.5, 0.2, 0.3, 0.0])


@pytest.mark.parametrize("weights", [SIMPLEX, np.array([0.5, 0.1, 0.0, -0.3])], ids=["simplex", "any"])
def test_ensemble_logits_are_the_weighted_increments(weights: np.ndarray) -> None:
    expected = START.copy()
    for i in range(5):
        for c in range(3):
            for k in range(4):
                expected[i, c] += weights[k] * (GROUPS[k, i, c] - START[i, c])
    np.testing.assert_allclose(ensemble_logits(START, GROUPS, weights, 1.0), expected, atol=1e-12)


def test_the_start_cancels_where_weights_sum_to_one() -> None:
    ours = ensemble_logits(START, GROUPS, SIMPLEX, 1.0)
    np.testing.assert_allclose(ours, ensemble_logits(START + 7.0, GROUPS, SIMPLEX, 1.0), atol=1e-12)
    np.testing.assert_allclose(ours, sum(w * z for w, z in zip(SIMPLEX, GROUPS, strict=True)), atol=1e-12)


def test_no_weight_leaves_the_start_and_all_weight_one_group() -> None:
    np.testing.assert_allclose(ensemble_logits(START, GROUPS, np.zeros(4), 1.0), START, atol=1e-12)
    np.testing.assert_allclose(ensemble_logits(START, GROUPS, np.eye(4)[2], 4.0), GROUPS[2] / 4, atol=1e-12)


def test_boosters_are_told_by_their_group() -> None:
    labels = ["booster/group-1-1", "booster/group-1-0", "booster/group-10-0", "logits/group-1-2/mood/test", "start"]
    references = dict.fromkeys(labels, "key")
    assert boosters_of(references, "group-1") == ["group-1-0", "group-1-1"]
    assert boosters_of(references, "group-10") == ["group-10-0"]
    assert boosters_of(references, "group-0") == []


def test_a_groups_logits_have_its_boosters(tmp_path: Path) -> None:
    tables = {
        name: RNG.normal(size=(6, 2)).astype(np.float32) for name in ("start", "group-1", "group-1-0", "group-1-1")
    }
    config = tiny_config(ModelConfig(id="none"), tmp_path, boosting=BoostingConfig(shrinkage=0.25))
    row, label = np.arange(6), np.array([0, 1, 0, 1, 0, 1])
    with Step("weigh", config.model_dump_json(), "run") as step:
        for name, logits in tables.items():

            def write(folder: Path, logits: np.ndarray = logits) -> dict[str, int]:
                write_logits(folder, "logits", Logits(row, logits, label))
                return {}

            step.obtain(logits_label(name, "mood", "validation"), "logits", {"model": name}, write)
        references = {name: made.key for name, made in step.made.items()}
        bare = member_logits(step, references, "group-1", "mood", "validation")
        kept = dict.fromkeys(("booster/group-1-0", "booster/group-1-1", "booster/group-11-0"), "key")
        boosted = member_logits(step, references | kept, "group-1", "mood", "validation")
        start = start_logits(step, references, "mood", "validation")
    assert bare.dtype == np.float64
    np.testing.assert_allclose(bare, tables["group-1"])
    expected = tables["group-1"].astype(np.float64)
    for i in range(6):
        for c in range(2):
            for k in (0, 1):
                expected[i, c] += 0.25 * (tables[f"group-1-{k}"][i, c] - tables["start"][i, c])
    np.testing.assert_allclose(boosted, expected, atol=1e-6)
    np.testing.assert_array_equal(start.logits, tables["start"])
    assert start.label.tolist() == label.tolist()
    assert has_logits(references, "group-1", "mood", "validation")
    assert not has_logits(references, "group-1", "mood", "test")
