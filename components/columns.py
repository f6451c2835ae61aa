"""The solver's inner loop: many small logistic regressions as the columns of one matrix, each at its own lambda.

Column k minimises

    mean_{i in S_k} mean_{rows of i} softplus(odds + features . w) + lambda_k / 2 |w|^2

by nonlinear conjugate gradients; odds are those of being wrong, ``-margin``. ``solver.py`` explains the choices.
"""

from dataclasses import dataclass

import torch

# How much of the slope may be left, uphill, behind a step.
OVERSHOOT = 0.5
# Where all rows are right beyond float32's range the gradient is exactly 0; a column like that stays where it is.
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Blocks:
    """The datasets' rows in the eigenbasis of their mean Hessian at the point.

    Attributes:
        features: one [M_i, dim] a dataset, the sign turned so that ``odds + features . w`` grow with the loss.
        odds: at the point, one [M_i] a dataset.
        curvature: eigenvalues of the Hessian, [dim].
        pull: the datasets' gradients at the point, [n, dim].
    """

    features: list[torch.Tensor]
    odds: list[torch.Tensor]
    curvature: torch.Tensor
    pull: torch.Tensor

    @classmethod
    def rotated(cls, features: list[torch.Tensor], odds: list[torch.Tensor]) -> tuple["Blocks", torch.Tensor]:
        """The blocks, and the rotation [dim, dim]: a solution w stands for ``rotation @ w``."""
        hessian = torch.zeros(features[0].shape[1], features[0].shape[1], dtype=torch.float64, device=odds[0].device)
        for block, values in zip(features, odds, strict=True):
            slope = torch.sigmoid(values)
            hessian += (block.T @ (block * (slope * (1 - slope))[:, None])).double() / len(block)
        curvature, rotation = torch.linalg.eigh(hessian / len(features))
        rotation = rotation.float()
        blocks = [block @ rotation for block in features]
        pull = [(torch.sigmoid(values) @ block) / len(block) for block, values in zip(blocks, odds, strict=True)]
        return cls(blocks, odds, curvature.clamp(min=0).float(), torch.stack(pull)), rotation


@dataclass
class Columns:
    """The subsets still being worked on, k of them.

    ``held[i]`` are the positions among the k whose subset holds dataset i; ``odds[i]`` and ``slope[i]`` (of softplus,
    ``sigmoid(odds)``) are their rows' values, [len(held[i]), M_i].
    """

    blocks: Blocks
    index: torch.Tensor
    members: torch.Tensor
    share: torch.Tensor
    lam: torch.Tensor
    w: torch.Tensor
    held: list[torch.Tensor]
    odds: list[torch.Tensor]
    slope: list[torch.Tensor]
    gradient: torch.Tensor
    steepest: torch.Tensor
    direction: torch.Tensor

    @classmethod
    def start(cls, blocks: Blocks, members: torch.Tensor, lam: torch.Tensor) -> "Columns":
        """Every subset of ``members`` [k, n] with its ``lam`` [k] at w = 0: gradients are sums of datasets' own."""
        share = 1.0 / members.sum(1).float()
        held = _held(members)
        odds = [values.expand(len(at), -1) for values, at in zip(blocks.odds, held, strict=True)]
        gradient = (members.float() @ blocks.pull) * share[:, None]
        steepest = -gradient / (blocks.curvature + lam[:, None])
        return cls(
            blocks=blocks,
            index=torch.arange(len(members), device=members.device),
            members=members,
            share=share,
            lam=lam.clone(),
            w=torch.zeros_like(gradient),
            held=held,
            odds=odds,
            slope=[torch.sigmoid(values) for values in odds],
            gradient=gradient,
            steepest=steepest,
            direction=steepest.clone(),
        )

    def keep(self, mask: torch.Tensor) -> "Columns":
        """The columns where ``mask`` [k] holds."""
        members = self.members[mask]
        return Columns(
            blocks=self.blocks,
            index=self.index[mask],
            members=members,
            share=self.share[mask],
            lam=self.lam[mask],
            w=self.w[mask],
            held=_held(members),
            odds=[odds[mask[at]] for odds, at in zip(self.odds, self.held, strict=True)],
            slope=[slope[mask[at]] for slope, at in zip(self.slope, self.held, strict=True)],
            gradient=self.gradient[mask],
            steepest=self.steepest[mask],
            direction=self.direction[mask],
        )

    def set_lambda(self, mask: torch.Tensor, lam: torch.Tensor) -> None:
        """Go on from the same w with another ``lam`` [mask.sum()] where ``mask`` [k] holds."""
        self.gradient[mask] += (lam - self.lam[mask])[:, None] * self.w[mask]
        self.lam[mask] = lam
        self.steepest[mask] = self.direction[mask] = -self.gradient[mask] / (self.blocks.curvature + lam[:, None])

    def iterate(self) -> int:
        """One conjugate-gradient iteration of every column (Polak-Ribiere+).

        Returns:
            FLOPs of its matrix products.
        """
        uphill = _dot(self.gradient, self.direction) >= 0
        self.direction[uphill] = self.steepest[uphill]
        previous, before = self.gradient, _dot(self.gradient, self.steepest)
        products = self._step()
        self.steepest = -self.gradient / (self.blocks.curvature + self.lam[:, None])
        beta = _dot(self.gradient - previous, self.steepest) / before.clamp(max=-_TINY)
        self.direction = beta.clamp(min=0)[:, None] * self.direction + self.steepest
        return products * 2 * self.w.shape[1] * sum(odds.numel() for odds in self.odds)

    def _step(self) -> int:
        """Step along the direction. Odds are linear there: two products a dataset, a third after overshooting.

        Returns:
            Products a dataset.
        """
        along = [self.direction[at] @ block.T for at, block in zip(self.held, self.blocks.features, strict=True)]
        before = _dot(self.gradient, self.direction)
        # softplus'' = slope * (1 - slope)
        bent = [
            torch.addcmul(slope, slope, slope, value=-1).mul_(change).mul_(change)
            for slope, change in zip(self.slope, along, strict=True)
        ]
        step = -before / (self.lam * _dot(self.direction, self.direction) + self._mean(bent)).clamp(min=_TINY)
        start = self.w, self.odds
        self._move(*start, along, step)
        overshot = _dot(self.gradient, self.direction) > -OVERSHOOT * before
        if not overshot.any():
            return 2
        largest = torch.zeros_like(step)
        for at, change in zip(self.held, along, strict=True):
            largest[at] = torch.maximum(largest[at], change.abs().amax(1))
        self._move(*start, along, torch.where(overshot, torch.log1p(largest * step) / largest, step))
        return 3

    def _move(self, w: torch.Tensor, odds: list[torch.Tensor], along: list[torch.Tensor], step: torch.Tensor) -> None:
        """Be at ``w + step * direction``, where odds have changed by ``step * along``."""
        self.w = torch.addcmul(w, step[:, None], self.direction)
        self.odds = [
            torch.addcmul(old, step[at, None], change) for at, old, change in zip(self.held, odds, along, strict=True)
        ]
        self.slope = [torch.sigmoid(values) for values in self.odds]
        self.gradient = self.lam[:, None] * self.w
        for at, slope, features in zip(self.held, self.slope, self.blocks.features, strict=True):
            self.gradient.index_add_(0, at, (slope @ features) * (self.share[at, None] / len(features)))

    def _mean(self, values: list[torch.Tensor]) -> torch.Tensor:
        """Mean over a subset's datasets of the mean over their rows, [k]."""
        mean = torch.zeros_like(self.share)
        for at, block in zip(self.held, values, strict=True):
            mean.index_add_(0, at, block.mean(1) * self.share[at])
        return mean


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left * right).sum(1)


def _held(members: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nonzero(column)[:, 0] for column in members.T]
