"""What estimating costs against fine-tuning: every part counts once, whichever run computed it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import Artifact
from components.trials import Trials
from components.validation.cost import compare_costs

START, AHEAD = {"flops": 100, "rows": 40}, {"flops": 50}
FEATURES = {"flops": 300, "rows": 20, "computed": 20, "flops_computed": 300}


def artifact(facts: dict[str, Any], seconds: float | None) -> Artifact:
    return Artifact("", "", Path(), {"facts": facts, "seconds": seconds})


@pytest.fixture
def trials() -> Trials:
    """Two seeds of {a, b} and of {b}: six memberships, 1,000 FLOPs and 5 seconds each."""
    members = np.array([[True, True], [False, True]])
    losses = np.zeros((2, 2, 2))
    flops, seconds = np.array([[2000.0, 2000.0], [1000.0, 1000.0]]), np.array([[10.0, 10.0], [5.0, 5.0]])
    return Trials(members, losses, losses, losses, flops, seconds, np.zeros((2, 2)))


def costs(trials: Trials, features: dict[str, Any], seconds: float | None = 2.0) -> dict[str, Any]:
    made = (
        [artifact(START, 0.25), artifact(AHEAD, 0.75)],
        [artifact(FEATURES, 3.0), artifact(features, seconds)],
        artifact({"flops": 50}, 4.0),
    )
    return compare_costs(*made, np.array([1, 1, 2]), trials)


def test_all_parts_are_counted(trials: Trials) -> None:
    found = costs(trials, FEATURES)
    assert found["estimating"] == {"flops": 800, "seconds": 10.0}
    assert found["fine_tuning"] == {"flops": 6000.0, "seconds": 30.0}
    assert (found["solver"], found["a_subset"], found["subsets"]) == (50, 1000.0, 3)
    assert found["ratio_published"] == pytest.approx(50 * 0.3 * 2 * 1000 / 800)
    assert found["ratio_own"] == pytest.approx(4 * 1000 / 800)
    assert found["seconds_ratio_own"] == pytest.approx(4 * 5 / 10)


def test_rows_of_an_earlier_run_count_in_full_and_leave_no_seconds(trials: Trials) -> None:
    found = costs(trials, FEATURES | {"computed": 2, "flops_computed": 30})
    assert found["estimating"] == {"flops": 800, "seconds": None}
    assert found["ratio_own"] == pytest.approx(4 * 1000 / 800)
    assert found["seconds_ratio_own"] is None


def test_an_unmeasured_part_leaves_no_seconds(trials: Trials) -> None:
    assert costs(trials, FEATURES, None)["estimating"]["seconds"] is None
