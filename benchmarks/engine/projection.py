"""The projection alone, on gradients of adapters with a million and ten million weights."""

import torch

from benchmarks.measure import Row, alternate
from components.gradients.projection import Projection

DIM, SAMPLES, BLOCK = 400, 8, 1_000_000


def rows() -> list[Row]:
    """Time against the dense product, and what the projection keeps."""
    matrix = torch.randn(BLOCK, DIM)  # 1.6 GB; a larger adapter's matrix is that many of it
    return [_time(size, matrix) for size in (BLOCK, 10 * BLOCK)] + [_memory(size) for size in (BLOCK, 10 * BLOCK)]


def _time(size: int, matrix: torch.Tensor) -> Row:
    gradient, projection = torch.randn(SAMPLES, size), Projection(DIM, 0, "count_sketch", torch.device("cpu"))
    out = torch.zeros(DIM, SAMPLES)

    def dense() -> torch.Tensor:
        return torch.stack([part @ matrix for part in gradient.split(BLOCK, dim=1)]).sum(0)

    projection.add("weight", gradient, out)
    ours, theirs = alternate(lambda: projection.add("weight", gradient, out), dense)
    note = f"{SAMPLES} samples to {DIM} dimensions; dense: float32, blocks of {BLOCK} weights"
    return Row(f"projection, {size // BLOCK} M weights", ours, theirs, theirs / ours, 20.0, "at least", note=note)


def _memory(size: int) -> Row:
    """Bytes kept for a weight, at two dimensions ten times apart."""
    kept = []
    for dim in (DIM, 10 * DIM):
        projection = Projection(dim, 0, "count_sketch", torch.device("cpu"))
        projection.add("weight", torch.zeros(1, size), torch.zeros(dim, 1))
        kept.append(projection.nbytes / size)
    name = f"projection, {size // BLOCK} M weights: memory at ten times the dimension"
    return Row(name, kept[1], kept[0], kept[1] / kept[0], 1.0, unit="bytes a weight")
