import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.gradients import projection as module
from components.gradients.projection import Projection

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
WORD = 2**64 - 1


def slow_hash(seed: int, name: str, position: int) -> int:
    """SplitMix64 in Python's own integers."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    value = ((position + 1) * 0x9E3779B97F4A7C15 + key) & WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def dense_matrix(kind: str, seed: int, name: str, size: int, dim: int) -> torch.Tensor:
    """The projection as a matrix [dim, size], entry by entry."""
    matrix = torch.zeros(dim, size, dtype=torch.float64)
    for position in range(size):
        if kind == "count_sketch":
            hashed = slow_hash(seed, name, position)
            matrix[(hashed >> 32) % dim, position] = 1.0 if hashed & 1 else -1.0
        else:
            for row in range(dim):
                hashed = slow_hash(seed, name, position * dim + row)
                matrix[row, position] = (1.0 if hashed & 1 else -1.0) / dim**0.5
    return matrix


def project(projection: Projection, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    """Projected rows [B, dim]."""
    out = torch.zeros(projection.dim, len(next(iter(gradients.values()))))
    for name, gradient in gradients.items():
        projection.add(name, gradient, out)
    return out.T


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["count_sketch", "rademacher"])
def test_equals_its_dense_matrix_and_parameters_add_up(kind: str) -> None:
    gradients = {"layer.A": normal(3, 40), "layer.B": normal(3, 25, seed=1)}
    found = project(Projection(16, 7, kind, CPU), gradients)
    expected = sum(g.double() @ dense_matrix(kind, 7, name, g.shape[1], 16).T for name, g in gradients.items())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_rademacher_does_not_depend_on_its_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = normal(3, 40)
    expected = gradient.double() @ dense_matrix("rademacher", 7, "a", 40, 16).T
    monkeypatch.setattr(module, "RADEMACHER_CHUNK", chunk)
    found = project(Projection(16, 7, "rademacher", CPU), {"a": gradient})
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["count_sketch", "rademacher"])
def test_inner_products_are_unbiased(kind: str) -> None:
    """The mean over 400 seeds lies within four standard errors of the true product, the norms' too."""
    gradients = {"a": normal(2, 60), "b": normal(2, 30, seed=1)}
    rows = torch.cat(list(gradients.values()), dim=1)
    rows[1] += 0.5 * rows[0]
    gradients = {"a": rows[:, :60], "b": rows[:, 60:]}
    exact = (rows @ rows.T).numpy()
    found = np.stack(
        [(p @ p.T).numpy() for p in (project(Projection(24, seed, kind, CPU), gradients) for seed in range(400))]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()
    assert (error > 0).all() and (error < 0.05 * exact[0, 0]).all(), "too few seeds to say anything"


def test_variance_falls_with_the_dimension() -> None:
    """Var <Px, Py> is at most (|x|^2 |y|^2 + <x, y>^2) / dim for both kinds."""
    rows = normal(2, 300)
    exact, bound = float(rows[0] @ rows[1]), float(rows.square().sum(1).prod() + (rows[0] @ rows[1]) ** 2)
    for dim in (16, 256):
        found = [project(Projection(dim, seed, "count_sketch", CPU), {"a": rows}) for seed in range(200)]
        variance = np.mean([(float(p[0] @ p[1]) - exact) ** 2 for p in found])
        assert 0.5 * bound / dim < variance < 1.5 * bound / dim


def test_different_parameters_are_hashed_differently() -> None:
    """Two parameters of one shape share buckets and signs no more often than chance has it."""
    size, dim = 1500, 50
    matrices = {}
    for seed, name in ((0, "layers.0.A"), (0, "layers.0.B"), (0, "layers.1.A"), (1, "layers.0.A")):
        matrices[seed, name] = project(Projection(dim, seed, "count_sketch", CPU), {name: torch.eye(size)})
    pairs = [(a, b) for i, a in enumerate(matrices) for b in list(matrices)[i + 1 :]]
    for a, b in pairs:
        same = (matrices[a] * matrices[b]).sum(1)  # +1 same bucket and sign, -1 same bucket, other sign
        assert abs(float((same != 0).float().mean()) - 1 / dim) < 4 * (1 / dim / size) ** 0.5
        assert abs(float(same.sum())) < 4 * (size / dim) ** 0.5
    buckets = matrices[0, "layers.0.A"].abs().sum(0)
    assert abs(float(buckets.mean()) - size / dim) < 1e-3 and float(buckets.max()) < 2 * size / dim


PROCESS = """
import sys, torch, numpy as np
from components.gradients.projection import Projection
gradient = torch.from_numpy(np.load(sys.argv[1]))
rows = []
for kind in ("count_sketch", "rademacher"):
    out = torch.zeros(16, len(gradient))
    Projection(16, 7, kind, torch.device("cpu")).add("model.layers.0.q_proj.B", gradient, out)
    rows.append(out.numpy())
np.save(sys.argv[2], np.stack(rows))
"""


def test_any_process_reproduces_any_row(tmp_path: Path) -> None:
    gradient = normal(5, 500)
    np.save(tmp_path / "gradient.npy", gradient.numpy())
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "gradient.npy"), str(tmp_path / "rows.npy")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    there = np.load(tmp_path / "rows.npy")
    for i, kind in enumerate(("count_sketch", "rademacher")):
        here = project(Projection(16, 7, kind, CPU), {"model.layers.0.q_proj.B": gradient})
        np.testing.assert_array_equal(here.T.numpy(), there[i])


def test_a_row_does_not_depend_on_its_batch() -> None:
    gradient = normal(6, 100)
    together = project(Projection(16, 7, "count_sketch", CPU), {"a": gradient})
    for i in range(6):
        assert torch.equal(project(Projection(16, 7, "count_sketch", CPU), {"a": gradient[i : i + 1]})[0], together[i])


@pytest.mark.parametrize("kind", ["count_sketch", "rademacher"])
def test_a_transposed_view_is_projected_as_what_it_shows(kind: str) -> None:
    whole, name = normal(3, 5, 8), "layer.B"
    flat = project(Projection(16, 7, kind, CPU), {name: whole.flatten(1)})
    view = whole.transpose(1, 2).contiguous().transpose(1, 2)
    assert not view.is_contiguous()
    projection = Projection(16, 7, kind, CPU)
    for gradient in (view, whole):
        torch.testing.assert_close(project(projection, {name: gradient}), flat, rtol=1e-5, atol=1e-5)
