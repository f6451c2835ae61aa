"""Metrics against scikit-learn, the vectorised bootstrap against a plain loop over the same resamples."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from components.ensemble import metrics
from components.ensemble.metrics import METRICS, Interval, average, intervals, score, value


def example(seed: int, rows: int = 150, classes: int = 5, signal: float = 1.5):
    rng = np.random.default_rng(seed)
    label = rng.choice(classes, size=rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    return rng.permutation(rows), signal * np.eye(classes)[label] + rng.normal(size=(rows, classes)), label


def slow_ece(logits, label) -> float:
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for k in range(15):
        inside = [n for n in range(len(label)) if k / 15 < chance[n].max() <= (k + 1) / 15]
        if inside:
            confidence = np.mean([chance[n].max() for n in inside])
            right = np.mean([chance[n].argmax() == label[n] for n in inside])
            total += len(inside) / len(label) * abs(confidence - right)
    return total


def slow_metrics(logits, label) -> dict[str, float]:
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {
        "accuracy": accuracy_score(label, logits.argmax(1)),
        "macro_f1": f1_score(label, logits.argmax(1), average="macro", zero_division=0),
        "cross_entropy": log_loss(label, chance, labels=range(logits.shape[1])),
        "ece": slow_ece(logits, label),
    }


@pytest.mark.parametrize("classes", [2, 5, 40])  # with 40, some classes are nowhere among the rows
def test_values_are_those_of_scikit_learn(classes):
    row, logits, label = example(classes, rows=60, classes=classes)
    expected = slow_metrics(logits, label)
    for metric in METRICS:
        assert value(score(row, logits, label), metric) == pytest.approx(expected[metric], abs=1e-12)


def test_intervals_are_those_of_a_plain_loop_over_the_same_resamples():
    row, logits, label = example(1)
    found = intervals(score(row, logits, label), resamples=110, seed=3, stream="a")
    draws = {metric: [] for metric in METRICS}
    for counts in metrics._counts(150, 110, 3, "a"):
        for one in counts:
            picked = np.repeat(np.arange(150), one.astype(int))
            for metric, number in slow_metrics(logits[picked], label[picked]).items():
                draws[metric].append(number)
    for metric in METRICS:
        low, high = np.quantile(draws[metric], [0.025, 0.975])
        assert found[metric].value == pytest.approx(slow_metrics(logits, label)[metric], abs=1e-12)
        assert (found[metric].low, found[metric].high) == pytest.approx((low, high), abs=1e-10)


def test_resamples_are_uniform_with_replacement_and_seeded():
    counts = np.concatenate(list(metrics._counts(20, 2500, 0, "x")))
    assert counts.shape == (2500, 20) and (counts.sum(1) == 20).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(0), 1 - 1 / 20, atol=0.12)
    assert not np.array_equal(counts[:100], next(metrics._counts(20, 100, 0, "y")))
    assert not np.array_equal(counts[:100], next(metrics._counts(20, 100, 1, "x")))


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    label = np.zeros(1000, int)
    logits = np.where(np.arange(1000)[:, None] < 800, [1.0, 0.0], [0.0, 1.0])
    found = intervals(score(np.arange(1000), logits, label), resamples=2000, seed=0)["accuracy"]
    error = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.8 - error, 0.8 + error), abs=2e-3)


def test_the_average_resamples_each_dataset_by_itself():
    scored = {name: score(*example(k, rows=100 + 30 * k)) for k, name in enumerate("abc")}
    kinds = {"a": "accuracy", "b": "macro_f1", "c": "accuracy"}
    found = average(scored, kinds, resamples=3000, seed=5)
    single = {name: intervals(one, resamples=3000, seed=5, stream=name)[kinds[name]] for name, one in scored.items()}
    assert found.value == pytest.approx(np.mean([one.value for one in single.values()]))
    width = np.sqrt(sum((one.high - one.low) ** 2 for one in single.values())) / 3
    assert found.high - found.low == pytest.approx(width, rel=0.08)
    assert found == average(scored, kinds, resamples=3000, seed=5)


def test_edges_of_confidence_fall_into_the_outer_bins():
    sure = score([1, 2], [[800.0, 0.0], [0.0, 800.0]], [0, 0])
    assert value(sure, "ece") == pytest.approx(0.5)
    assert value(sure, "cross_entropy") == pytest.approx(400)
    assert intervals(score([1], [[1.0, 0.0]], [0]), resamples=10, seed=0)["accuracy"] == Interval(1.0, 1.0, 1.0)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        score([1, 2], np.zeros((3, 2)), [0, 0, 0])
    with pytest.raises(ValueError, match="shapes"):
        score([], np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match="labels"):
        score([1], [[0.0, 1.0]], [-1])
    with pytest.raises(ValueError, match="finite"):
        score([1], [[0.0, np.inf]], [0])
