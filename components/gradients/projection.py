"""Random projections of adapter gradients whose matrix never exists.

Count-sketch (Charikar, Chen and Farach-Colton 2002; as feature hashing, Weinberger et al. 2009): every coordinate of
the adapter is added, with a random sign, to one of ``dim`` numbers. Inner products are kept in expectation and the
cost is one addition a coordinate. Bucket and sign are a hash of (seed, parameter name, position), so any process
reproduces any row. The dense Rademacher projection of the paper is there to compare with: it costs ``dim`` times more.
"""

import hashlib
from typing import Literal

import numpy as np
import torch

RADEMACHER_CHUNK = 4096  # coordinates whose signs exist at one time: 4096 x dim floats


class Projection:
    """Project gradients, parameter by parameter, into one vector a sample.

    Args:
        dim: length of the projected vectors.
        seed: equal seeds give equal projections in every process and on every machine.
    """

    def __init__(self, dim: int, seed: int, kind: Literal["count_sketch", "rademacher"], device: torch.device) -> None:
        self.dim, self.seed, self.kind, self.device = dim, seed, kind, device
        self._sketches: dict[tuple[str, bool], torch.Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes kept for the parameters met so far: 8 a weight, whatever ``dim`` is; none for Rademacher."""
        return sum(bins.nbytes for bins in self._sketches.values())

    def add(self, name: str, gradient: torch.Tensor, out: torch.Tensor) -> None:
        """Add the projection of one parameter's gradients to ``out``, [dim, B]; see :meth:`accumulate`."""
        sums = self.sums(len(gradient))
        self.accumulate(name, gradient, sums)
        out.add_(self.projected(sums).T)

    def sums(self, rows: int) -> torch.Tensor:
        """Zeros for :meth:`accumulate`. A sketch's positive and negative coordinates have bins of their own, so that a
        gradient is read once and no signed copy of it is made.
        """
        return torch.zeros(rows, (2 if self.kind == "count_sketch" else 1) * self.dim, device=self.device)

    def accumulate(self, name: str, gradient: torch.Tensor, sums: torch.Tensor) -> None:
        """Add one parameter's gradients to the sums of B samples.

        Args:
            gradient: [B, p], or [B, m, n] with p = m n; a transposed view is read as it lies, without a copy.
        """
        if self.kind == "count_sketch":
            swapped = gradient.dim() == 3 and gradient.stride(1) < gradient.stride(2)
            flat = (gradient.transpose(1, 2) if swapped else gradient).flatten(1)
            sums.index_add_(1, self._sketch(name, gradient.shape[1:], swapped), flat.float())
            return
        gradient = gradient.flatten(1)
        key, scale = parameter_key(self.seed, name), self.dim**-0.5
        for start in range(0, gradient.shape[1], RADEMACHER_CHUNK):
            part = gradient[:, start : start + RADEMACHER_CHUNK]
            cells = np.arange(start * self.dim, (start + part.shape[1]) * self.dim, dtype=np.uint64)
            signs = _signs(mix(cells, key)).reshape(part.shape[1], self.dim)
            sums.add_(part @ torch.from_numpy(signs).to(self.device), alpha=scale)

    def projected(self, sums: torch.Tensor) -> torch.Tensor:
        """Projected rows, [B, dim], once every parameter has been added."""
        return sums[:, self.dim :] - sums[:, : self.dim] if self.kind == "count_sketch" else sums

    def _sketch(self, name: str, shape: torch.Size, swapped: bool) -> torch.Tensor:
        """The bin of each coordinate, [p]: its bucket, plus ``dim`` where its sign is positive."""
        if (name, swapped) not in self._sketches:
            hashed = mix(np.arange(shape.numel(), dtype=np.uint64), parameter_key(self.seed, name))
            bins = (hashed >> np.uint64(32)) % np.uint64(self.dim) + np.uint64(self.dim) * (hashed & np.uint64(1))
            placed = bins.astype(np.int64).reshape(shape)
            flat = np.ascontiguousarray(placed.T if swapped else placed).ravel()
            self._sketches[name, swapped] = torch.from_numpy(flat).to(self.device)
        return self._sketches[name, swapped]


def parameter_key(seed: int, name: str) -> np.uint64:
    """A 64-bit key of a parameter: the start of sha256 over seed and name."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little"))


def mix(position: np.ndarray, key: np.uint64) -> np.ndarray:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014) over key + position: one 64-bit hash a position."""
    with np.errstate(over="ignore"):
        value = (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def _signs(hashed: np.ndarray) -> np.ndarray:
    return np.where(hashed & np.uint64(1), 1.0, -1.0).astype(np.float32)
