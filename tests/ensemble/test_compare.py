"""Paired comparisons against plain loops and against exact tests."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from components.ensemble import metrics
from components.ensemble.compare import compare
from components.ensemble.metrics import score, value
from components.errors import UserError


def f1(truth, answer) -> float:
    each = []
    for k in set(truth) | set(answer):
        right, named, there = ((truth == k) & (answer == k)).sum(), (answer == k).sum(), (truth == k).sum()
        each.append(2 * right / (named + there))
    return float(np.mean(each))


def pair(seed: int, rows: int = 120, classes: int = 3, better: float = 0.5):
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=rows)
    shared = rng.normal(size=(rows, classes)) + np.eye(classes)[label]
    theirs = shared + 0.3 * rng.normal(size=(rows, classes))
    mine = shared + 0.3 * rng.normal(size=(rows, classes)) + better * np.eye(classes)[label]
    ids = rng.permutation(10 * rows)[:rows]
    return score(ids, mine, label), score(ids, theirs, label)


def reorder(scored, order):
    return score(scored.row[order], np.eye(scored.classes)[scored.predicted[order]], scored.label[order])


def test_interval_and_p_value_are_those_of_a_plain_loop():
    mine, theirs = pair(0)
    order = np.argsort(mine.row)
    label, a, b = mine.label[order], mine.predicted[order], theirs.predicted[order]

    assert f1(label, a) == pytest.approx(f1_score(label, a, average="macro"))
    found = compare({"x": mine}, {"x": theirs}, {"x": "macro_f1"}, resamples=150, seed=4)
    draws = []
    for counts in metrics._counts(120, 150, 4, "x"):
        for one in counts:
            picked = np.repeat(np.arange(120), one.astype(int))
            draws.append(f1(label[picked], a[picked]) - f1(label[picked], b[picked]))
    assert found.difference.value == pytest.approx(f1(label, a) - f1(label, b))
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert found.by_dataset == {"x": found.difference}

    rng, extreme = np.random.default_rng(0), 0
    for _ in range(1000):
        swap = rng.random(120) < 0.5
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        extreme += abs(f1(label, one) - f1(label, other)) >= abs(found.difference.value) - 1e-12
    many = compare({"x": mine}, {"x": theirs}, {"x": "macro_f1"}, resamples=4000, seed=4)
    assert many.p_value == pytest.approx(extreme / 1000, abs=0.04)


@pytest.mark.parametrize("better", [0.0, 0.15, 0.3])
def test_p_value_of_accuracy_is_the_exact_sign_test(better):
    mine, theirs = pair(1, rows=300, better=better)
    wins = int(((mine.predicted == mine.label) & (theirs.predicted != mine.label)).sum())
    losses = int(((mine.predicted != mine.label) & (theirs.predicted == mine.label)).sum())
    exact = binomtest(wins, wins + losses).pvalue
    found = compare({"x": mine}, {"x": theirs}, {"x": "accuracy"}, resamples=5000, seed=0)
    assert found.difference.value == pytest.approx((wins - losses) / 300)
    assert found.p_value == pytest.approx(exact, abs=0.03)


def test_average_over_datasets_and_pairing():
    sides = {name: pair(k, rows=100 + 50 * k) for k, name in enumerate("abc")}
    ours, baseline = ({name: two[side] for name, two in sides.items()} for side in (0, 1))
    kinds = {"a": "accuracy", "b": "macro_f1", "c": "accuracy"}
    found = compare(ours, baseline, kinds, resamples=1000, seed=0)
    each = [value(ours[name], kinds[name]) - value(baseline[name], kinds[name]) for name in "abc"]
    assert found.difference.value == pytest.approx(np.mean(each))
    assert list(found.by_dataset) == ["a", "b", "c"]
    assert found.p_value < 0.01 and found.difference.low > 0
    unpaired = [metrics.average(side, kinds, resamples=1000, seed=0) for side in (ours, baseline)]
    assert found.difference.high - found.difference.low < sum(one.high - one.low for one in unpaired) / 1.5


def test_row_order_does_not_matter_and_methods_alike_do_not_differ():
    mine, _ = pair(3)
    again = reorder(mine, np.random.default_rng(0).permutation(120))
    found = compare({"x": mine}, {"x": again}, {"x": "accuracy"}, resamples=200, seed=0)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1)


def test_unmatched_rows_are_refused_all_at_once():
    mine, theirs = pair(0)
    other_label = score(theirs.row, np.eye(3)[theirs.predicted], (theirs.label + 1) % 3)
    twice = reorder(theirs, np.r_[0, 0, 2:120])
    with pytest.raises(UserError) as caught:
        compare(
            {"fewer": mine, "labels": mine, "twice": mine, "mine": mine},
            {"fewer": reorder(theirs, np.arange(100)), "labels": other_label, "twice": twice},
            {"fewer": "accuracy", "labels": "accuracy", "twice": "accuracy", "mine": "accuracy"},
            resamples=10,
            seed=0,
        )
    assert caught.value.problems == (
        "fewer: 120 and 100 rows, only 100 of them the same",
        "labels: 120 rows with different labels",
        "mine: only one side has it",
        "twice: a row id occurs more than once",
    )
