"""Frozen rows against rows that are new, gone or relabelled, and datasets that cannot be compared."""

import numpy as np
import pytest

from components.artifacts import publish
from components.ensemble.champion import against_champion
from components.inputs import Prepared
from components.object_store import LocalStore
from components.prepared import PreparedDataset
from components.tables import Logits, write_logits

OPTIONS = {"resamples": 50, "seed": 0}


def table(answers: dict[int, tuple[int, int]], columns: int = 2) -> Logits:
    """Row id -> (answer, label); the answer's logit is 2, the others' 0."""
    row = np.array(sorted(answers), np.int64)
    logits = np.array([2.0 * np.eye(columns)[answers[one][0]] for one in row], np.float32)
    return Logits(row, logits, np.array([answers[one][1] for one in row], np.int64))


def prepared(**labels: tuple[str, ...]) -> Prepared:
    datasets = [PreparedDataset(n, "{t}", words, words, "accuracy", not words, {}, {}) for n, words in labels.items()]
    return Prepared(datasets, {}, {})


@pytest.fixture
def champion(tmp_path):
    def make(**known: tuple[tuple[str, ...], Logits]):
        def write(folder):
            for name, (_, logits) in known.items():
                write_logits(folder, name, logits)
            return {"labels": {name: list(labels) for name, (labels, _) in known.items()}}

        return publish(LocalStore(tmp_path), "evaluation", {}, write)

    return make


def test_only_frozen_rows_decide_and_new_ones_are_told_apart(champion):
    # On rows 1-4, which both have seen, the champion errs on row 1 alone; on the new rows 5 and 6 we err on both.
    before = champion(film=(("no", "yes"), table({1: (0, 1), 2: (1, 1), 3: (0, 0), 4: (0, 0), 9: (1, 0)})))
    ours = {"film": table({1: (1, 1), 2: (1, 1), 3: (0, 0), 4: (0, 0), 5: (0, 1), 6: (0, 1)})}
    found = against_champion(before, ours, prepared(film=("no", "yes")), **OPTIONS)
    assert found["comparison"]["baseline"] == "champion"
    assert found["comparison"]["difference"] == pytest.approx(0.25)
    assert found["comparison"]["by_dataset"]["film"]["difference"] == pytest.approx(0.25)
    rows = found["test_rows"]["film"]
    assert {key: rows[key] for key in ("frozen", "new", "gone", "relabelled")} == {
        "frozen": 4, "new": 2, "gone": 1, "relabelled": 0,
    }  # fmt: skip
    assert rows["on_new"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["left_out"] == {}


def test_both_are_held_to_todays_labels_in_todays_order(champion):
    # The champion's columns stand the other way round. Row 2 was corrected from yes to no since.
    before = champion(film=(("yes", "no"), table({1: (0, 0), 2: (0, 0)})))
    ours = {"film": table({1: (1, 1), 2: (0, 0)})}
    found = against_champion(before, ours, prepared(film=("no", "yes")), **OPTIONS)
    assert found["test_rows"]["film"]["relabelled"] == 1 and found["test_rows"]["film"]["on_new"] is None
    assert found["comparison"]["difference"] == pytest.approx(0.5), "both right on row 1, we alone on row 2"


def test_what_cannot_be_compared_is_named(champion):
    labels = ("no", "yes")
    one = table({1: (0, 0)})
    before = champion(kept=(labels, one), gone=(labels, one), renamed=(labels, one), moved=(labels, table({7: (0, 0)})))
    ours = {"kept": one, "fresh": one, "renamed": one, "moved": one}
    now = prepared(kept=labels, fresh=labels, renamed=("nay", "yea"), moved=labels)
    found = against_champion(before, ours, now, **OPTIONS)
    assert found["left_out"] == {
        "gone": "only the champion has it",
        "fresh": "new since the champion",
        "renamed": "its labels are not the champion's",
        "moved": "none of its test rows is the champion's",
    }
    assert list(found["comparison"]["by_dataset"]) == ["kept"]
    nothing = against_champion(before, {"fresh": one}, prepared(fresh=labels), **OPTIONS)
    assert nothing["comparison"] is None and nothing["test_rows"] == {}


def test_a_completion_dataset_has_no_labels_to_match(champion):
    before = champion(story=((), table({1: (0, 1), 2: (1, 1)})))
    found = against_champion(before, {"story": table({1: (1, 1), 2: (1, 1)})}, prepared(story=()), **OPTIONS)
    assert found["comparison"]["difference"] == pytest.approx(0.5)
