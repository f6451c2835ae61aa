"""The time of training against a real optimiser: where Adam's steps end is where the surrogate's path does."""

import numpy as np
import pytest
import torch

from components.config import TrainingConfig
from components.solver import PathSolver
from components.tables import Features
from components.training_time import training_times

DIM = 200


def table(seed: int, rows: int) -> Features:
    """Rows with a common direction and much noise, as gradients have; some rows are wrong at the start."""
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(99).normal(size=DIM) / np.sqrt(DIM)
    features = (rng.normal(size=(rows, DIM)) + direction) * 0.7
    return Features(np.arange(rows), features.astype(np.float32), rng.normal(size=rows).astype(np.float32))


def test_times_are_those_of_batches_drawn_one_by_one() -> None:
    tables, rng, batch = [table(0, 60), table(1, 90)], np.random.default_rng(0), 8
    pulls = [t.features / (1 + np.exp(t.margin.astype(np.float64)))[:, None] for t in tables]
    squares = []
    for _ in range(20_000):
        drawn = [pulls[i][rng.integers(len(pulls[i]))] for i in rng.integers(2, size=batch)]
        squares.append((np.mean(drawn, axis=0) ** 2).sum())
    training = TrainingConfig(epochs=5, learning_rate=1e-3, batch_size=batch)
    expected = np.array([5 * 600 / batch, 5 * 50 / batch]) * 0.5e-3 / np.sqrt(np.mean(squares) / 1234)
    np.testing.assert_allclose(training_times(training, [600, 50], tables, 1234), expected, rtol=0.02)


@pytest.mark.parametrize("epochs", [1, 4, 16])
def test_adam_ends_where_the_path_does(epochs: int) -> None:
    data, batch, rate = table(2, 400), 16, 2e-3
    features, margin = torch.from_numpy(data.features), torch.from_numpy(data.margin)
    w = torch.zeros(DIM, requires_grad=True)
    steps, order = epochs * 400 // batch, torch.Generator().manual_seed(0)
    adam = torch.optim.AdamW([w], lr=rate, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for rows in torch.randperm(400, generator=order).split(batch):
            adam.zero_grad()
            torch.nn.functional.softplus(-(margin[rows] + features[rows] @ w)).mean().backward()
            adam.step()
            falling.step()
    training = TrainingConfig(epochs=epochs, learning_rate=rate, batch_size=batch)
    end = 1 / training_times(training, [400], [data], DIM)[0]
    path = [10 * end, 3 * end, end, end / 3, end / 10]
    solved = PathSolver([data]).solve(np.array([[True]]), path).weights[:, 0]
    losses = [
        float(np.logaddexp(0, -(data.margin + data.features @ one)).mean()) for one in (*solved, w.detach().numpy())
    ]
    assert np.abs(np.subtract(losses[:-1], losses[-1])).argmin() == 2, (end, losses)
