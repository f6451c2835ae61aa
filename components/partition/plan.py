"""From estimated losses to groups: search, choice of m, the champion's say, and what stands next to the answer.

Exact where every subset was estimated (and there are up to 14 datasets); otherwise a local search that starts, for each
m, from the SDP's rounding. There the halves' searches start from the same roundings, whose affinity knows all rows: a
trace of optimism in the cross-fitted gain that the exact way does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from components.errors import UserError
from components.partition.champion import adapt
from components.partition.choose import Comparison, compare, cross_fitted_gain
from components.partition.exact import best_partitions
from components.partition.groups import Groups, one_each, one_group
from components.partition.losses import Losses, RowLosses
from components.partition.result import AffinityFit, Alternative, CurvePoint, Expected, Gain, Partition
from components.partition.rounding import affinity_objective, round_relaxation
from components.partition.sdp import normalise, relax
from components.partition.search import search
from components.partition.stability import co_membership

_ALTERNATIVES = 4


@dataclass(frozen=True)
class _Settings:
    groups: int | Literal["auto"]
    max_groups: int
    bootstrap: int
    seed: int

    @property
    def most(self) -> int:
        """As many groups as the answer may have."""
        return self.max_groups if self.groups == "auto" else self.groups


@dataclass(frozen=True)
class _Candidates:
    """The best partition for each m = 1, 2, ..."""

    by_m: list[Groups]
    scored: int
    complete: bool


@dataclass(frozen=True)
class _Decision:
    """The partitions considered (for each m; then a group each; then the champion, if any), and which it is to be."""

    considered: list[Groups]
    comparison: Comparison
    curve: Comparison
    chosen: int
    kept_champion: bool

    @property
    def groups(self) -> Groups:
        return self.considered[self.chosen]


class _Planner:
    """Losses, affinity and settings of one call, shared by its stages."""

    def __init__(self, losses: Losses, affinity: np.ndarray, settings: _Settings) -> None:
        self.losses, self.affinity, self.settings = losses, affinity, settings
        self.table = losses.table()
        self.up_to = min(losses.n, max(settings.most, settings.max_groups))
        self._starts = {} if self.table is not None else {m: self._rounded(m) for m in range(1, self.up_to + 1)}

    def candidates(self, column: int) -> _Candidates:
        """The best partitions under one column of the losses."""
        if self.table is not None:
            ranked = best_partitions(self.table[column])[: self.up_to]
            return _Candidates([groups for _, groups in ranked], self.table.shape[1] - 1, complete=True)
        found = search(self.losses.cost(column), self._starts)
        return _Candidates([found.best[m] for m in sorted(found.best)], found.scored, found.complete)

    def decide(self, by_m: list[Groups], champion: Groups | None) -> _Decision:
        """Pick m, then let the champion stay unless choosing anew beats it by more than one paired standard error.

        That difference is cross-fitted too: on the rows it was chosen on, the best of very many partitions beats any
        champion that was not.
        """
        considered = [*by_m, one_each(self.losses.n), *([] if champion is None else [champion])]
        self.losses.fetch(considered)
        comparison = self._compare([self.losses.rows(groups, 0) for groups in considered])
        curve = Comparison(comparison.loss[: len(by_m)], comparison.resampled[: len(by_m)])
        chosen, last = self._pick(curve), len(considered) - 1
        kept = champion is not None and (champion == by_m[chosen] or not self._beaten(champion))
        return _Decision(considered, comparison, curve, last if kept else chosen, kept)

    def gain(self, decision: _Decision) -> Gain:
        """Cross-fitted. A champion kept was chosen on other data: only lambda changes sides."""
        chosen = [decision.groups] * 2 if decision.kept_champion else self._chosen_on_halves
        return Gain(*self._cross_fitted(chosen, one_group(self.losses.n)))

    def affinity_fit(self, groups: Groups, names: Sequence[str]) -> AffinityFit:
        """Where the chosen groups stand by affinity alone."""
        relaxation = relax(self.affinity, groups=len(groups))
        rounded = round_relaxation(self.affinity, relaxation.matrix, len(groups), seed=self.settings.seed)
        objective = affinity_objective(self.affinity, groups)
        return AffinityFit(
            objective=objective,
            bound=relaxation.bound,
            gap=max(0.0, relaxation.bound - objective),
            affinity_groups=_named(rounded, names),
            affinity_objective=affinity_objective(self.affinity, rounded),
        )

    def co_membership(self, m: int) -> list[list[float]] | None:
        """Stability under resampled rows; None unless every subset was estimated."""
        if self.table is None:
            return None
        found = co_membership(self.losses, m, resamples=self.settings.bootstrap, seed=self.settings.seed)
        return [[float(share) for share in row] for row in found]

    def _rounded(self, m: int) -> Groups:
        matrix = relax(self.affinity, groups=m).matrix
        return round_relaxation(self.affinity, matrix, m, seed=self.settings.seed)

    def _compare(self, rows: list[list[np.ndarray]]) -> Comparison:
        return compare(rows, resamples=self.settings.bootstrap, seed=self.settings.seed)

    def _pick(self, curve: Comparison) -> int:
        return curve.smallest_within_one() if self.settings.groups == "auto" else self.settings.groups - 1

    def _beaten(self, champion: Groups) -> bool:
        gain, error = self._cross_fitted(self._chosen_on_halves, champion)
        return gain > error

    def _cross_fitted(self, chosen: Sequence[Groups], other: Groups) -> tuple[float, float]:
        """Gain over ``other`` of the partitions chosen on half 0 and on half 1, each measured on the half left."""
        self.losses.fetch([*chosen, other])
        measured = [
            [self.losses.rows(groups, 1 + half, half=1 - half) for half, groups in enumerate(pair)]
            for pair in (chosen, [other, other])
        ]
        return cross_fitted_gain(*measured)

    @cached_property
    def _chosen_on_halves(self) -> list[Groups]:
        return [self._chosen_on(half) for half in (0, 1)]

    def _chosen_on(self, half: int) -> Groups:
        by_m = self.candidates(1 + half).by_m
        self.losses.fetch(by_m)
        return by_m[self._pick(self._compare([self.losses.rows(groups, 1 + half, half=half) for groups in by_m]))]


def choose_partition(
    *,
    names: Sequence[str],
    entropy: np.ndarray,
    members: np.ndarray,
    loss: np.ndarray,
    affinity: np.ndarray,
    row_losses: RowLosses,
    second_half: Sequence[np.ndarray],
    groups: int | Literal["auto"] = "auto",
    max_groups: int = 10,
    bootstrap: int = 200,
    seed: int = 0,
    previous: Sequence[Sequence[str]] | None = None,
) -> Partition:
    """Group the datasets so that their estimated losses are low with few groups.

    Args:
        names: n dataset names.
        entropy: nats of each dataset's label distribution [n].
        members: bool [K, n], the subsets estimated.
        loss: [3, K, n] mean validation loss, lambda chosen and loss measured on all rows, half 0, half 1.
        affinity: T [n, n], larger is better.
        row_losses: losses of validation rows for any subsets, see :data:`~components.partition.losses.RowLosses`.
        second_half: for each dataset a bool mask over its validation rows [M_i], true in half 1.
        groups: how many, or "auto": the smallest number within one paired standard error of the best.
        max_groups: upper end of the curve over m.
        bootstrap: resamples behind standard errors and co-membership.
        seed: of the resamples and of the rounding's random starts.
        previous: the champion's groups by name, or None; not kept with another number of groups than is allowed.

    Raises:
        UserError: ``groups`` is out of range, a dataset has one label only, or a half has no validation row.
    """
    _check(names, entropy, second_half, groups)
    settings = _Settings(groups, max_groups, bootstrap, seed)
    losses = Losses(entropy, members, loss, row_losses, second_half)
    planner = _Planner(losses, normalise(affinity), settings)
    candidates = planner.candidates(0)
    decision = planner.decide(candidates.by_m, _champion(previous, names, losses, settings))
    return _described(planner, names, candidates, decision)


def _described(planner: _Planner, names: Sequence[str], candidates: _Candidates, decision: _Decision) -> Partition:
    return Partition(
        names=list(names),
        groups=_named(decision.groups, names),
        method="search" if planner.table is None else "exact",
        scored=candidates.scored,
        complete=candidates.complete,
        curve=_curve(decision.curve),
        expected=_expected(decision),
        gain=planner.gain(decision),
        affinity=planner.affinity_fit(decision.groups, names),
        co_membership=planner.co_membership(len(decision.groups)),
        kept_champion=decision.kept_champion,
        alternatives=_alternatives(decision, names),
    )


def _check(
    names: Sequence[str], entropy: np.ndarray, second_half: Sequence[np.ndarray], groups: int | Literal["auto"]
) -> None:
    if groups != "auto" and not 1 <= groups <= len(names):
        raise UserError(
            f"partition.groups is {groups}, but there are {len(names)} datasets",
            remedy=f"choose a number from 1 to {len(names)}, or auto",
        )
    problems = [
        f"{name}: all validation rows have the same label" for name, h in zip(names, entropy, strict=True) if not h > 0
    ]
    problems += [
        f"{name}: {len(half)} validation rows do not fill two halves"
        for name, half in zip(names, second_half, strict=True)
        if half.all() or not half.any()
    ]
    if problems:
        raise UserError(
            "Losses cannot be compared across datasets.",
            remedy="give these datasets more validation rows",
            problems=tuple(problems),
        )


def _champion(
    previous: Sequence[Sequence[str]] | None, names: Sequence[str], losses: Losses, settings: _Settings
) -> Groups | None:
    """The champion's groups with today's datasets; None where there is none or the settings rule it out."""
    champion = None if previous is None else adapt(previous, names, losses.cost(0), settings.most)
    if champion is None or len(champion) > settings.most:
        return None
    return champion if settings.groups in ("auto", len(champion)) else None


def _curve(curve: Comparison) -> list[CurvePoint]:
    errors = curve.standard_error(int(curve.loss.argmin()))
    points = enumerate(zip(curve.loss.tolist(), errors.tolist(), strict=True), start=1)
    return [CurvePoint(m, loss, error) for m, (loss, error) in points]


def _expected(decision: _Decision) -> Expected:
    loss = decision.comparison.loss.tolist()
    return Expected(chosen=loss[decision.chosen], one=loss[0], each=loss[len(decision.curve.loss)])


def _alternatives(decision: _Decision, names: Sequence[str]) -> list[Alternative]:
    """The best few of the partitions considered that are not the chosen one."""
    loss = decision.comparison.loss
    errors = decision.comparison.standard_error(decision.chosen)
    seen = {decision.groups}
    found = []
    for p in np.argsort(loss, kind="stable").tolist():
        groups = decision.considered[p]
        if groups not in seen:
            seen.add(groups)
            worse_by = float(loss[p] - loss[decision.chosen])
            found.append(Alternative(_named(groups, names), float(loss[p]), worse_by, float(errors[p])))
    return found[:_ALTERNATIVES]


def _named(groups: Groups, names: Sequence[str]) -> list[list[str]]:
    return [[names[i] for i in group] for group in groups]
