"""Local search for cheap partitions when scoring every subset is out of reach.

A partition's cost is the sum of its groups' costs, so changes that touch different groups add up: each sweep scores
all its candidate groups in one batch and then applies every improving change that fits beside the better ones. Within a
number of groups m the changes are moves of one dataset and, when no move helps, swaps of two; across m, a dataset is
split off or two groups are merged, and the outcome improved in turn. Deterministic: ties go to the change listed first.

The searches for all m run side by side, and their sweeps are scored in the same batch: solving a few groups takes
nearly as long as solving many.

The optimum is local. What speaks for it is the start (the SDP's rounding for each m) and the exchange between
neighbouring m; on small problems the tests compare it with the exact optimum. Scoring a group is a solve, so there is a
budget of groups, which all m share: 60 datasets need about 8,000 groups, 150 about 40,000. When it is spent, the search
ends with what it has and says so.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from components.partition.groups import Group, Groups, canonical

Cost = Callable[[Sequence[Group]], np.ndarray]
"""Costs float [K] of K groups."""

Asking = Generator[list[Group], np.ndarray, Groups]
"""A search that asks for the costs of groups, is sent them, and ends with a partition."""

BUDGET = 20_000
_WORTH_IT = 1e-10  # smaller gains are rounding errors and could cycle
_SWAPS_PER_DATASET = 4


class Memo:
    """Costs of groups, each solved once; those of a batch that are new are solved together."""

    def __init__(self, solve: Cost) -> None:
        self._solve = solve
        self._known: dict[Group, float] = {}

    def __call__(self, groups: Sequence[Group]) -> np.ndarray:
        """Costs of ``groups``, float64 [len(groups)]."""
        new = list(dict.fromkeys(group for group in groups if group not in self._known))
        if new:
            self._known.update(zip(new, self._solve(new).tolist(), strict=True))
        return np.array([self._known[group] for group in groups])

    @property
    def solved(self) -> int:
        """Distinct groups scored so far."""
        return len(self._known)


class Found(NamedTuple):
    """The best partition for each m, how many groups were scored, and whether the search came to its end."""

    best: dict[int, Groups]
    scored: int
    complete: bool


class Change(NamedTuple):
    """Replace the groups at ``where`` by the groups ``new``."""

    where: tuple[int, ...]
    new: tuple[Group, ...]


class _Move(NamedTuple):
    dataset: int
    source: int
    target: int


def search(solve: Cost, starts: dict[int, Groups], *, budget: int = BUDGET) -> Found:
    """The best partition found for each m in ``starts``, beginning at ``starts[m]`` (m groups each).

    The budget is looked at between sweeps, so that it can be overrun by one of each m.
    """
    cost = Memo(solve)
    numbers = sorted(starts)
    best = dict(zip(numbers, together(cost, [improved(cost, starts[m], budget) for m in numbers]), strict=True))
    steps = [(m, other) for m in numbers for other in (m + 1, m - 1) if other in best]
    asked: set[tuple[Groups, int]] = set()
    while cost.solved < budget:
        new = [(best[source], target) for source, target in steps if (best[source], target) not in asked]
        if not new:
            break
        asked.update(new)
        found = together(cost, [_onward(cost, groups, target, budget) for groups, target in new])
        for (_, m), groups in zip(new, found, strict=True):
            if total(cost, groups) < total(cost, best[m]) - _WORTH_IT:
                best[m] = groups
    return Found(best, cost.solved, complete=cost.solved < budget)


def together(cost: Memo, searches: Sequence[Asking]) -> list[Groups]:
    """Run searches side by side: what all of them ask for in a turn is solved in one batch. Their results."""
    ended: dict[int, Groups] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(searches)))
    while True:
        asked: dict[int, list[Group]] = {}
        for k, answer in answers.items():
            try:
                asked[k] = searches[k].send(answer)
            except StopIteration as end:
                ended[k] = end.value
        if not asked:
            return [ended[k] for k in range(len(searches))]
        costs = cost([group for groups in asked.values() for group in groups])
        ends = np.cumsum([len(groups) for groups in asked.values()])
        answers = dict(zip(asked, np.split(costs, ends[:-1]), strict=True))


def improved(cost: Memo, groups: Groups, budget: int = BUDGET) -> Asking:
    """Improve ``groups`` by moves and swaps until none helps or ``budget`` is spent; the number of groups stays."""
    while cost.solved < budget:
        moves = _moves(groups)
        changes = [_move(groups, move) for move in moves]
        gains = yield from _gains(groups, changes)
        keeps_m = [len(change.new) == 2 for change in changes]
        better = _improving(gains[keeps_m], [change for change, keeps in zip(changes, keeps_m, strict=True) if keeps])
        if not better:
            swaps = _swaps(groups, moves, gains)
            better = _improving((yield from _gains(groups, swaps)), swaps)
        if not better:
            break
        groups = _apply(groups, better)
    return groups


def neighbour(groups: Groups, m: int) -> Asking:
    """The cheapest partition one merge (``m`` = groups - 1) or one split-off dataset (``m`` = groups + 1) away."""
    if m < len(groups):
        pairs = [(a, b) for b in range(len(groups)) for a in range(b)]
        changes = [Change(pair, (_join(groups[pair[0]], groups[pair[1]]),)) for pair in pairs]
    else:
        changes = [
            Change((g,), ((i,), _without(group, i))) for g, group in enumerate(groups) if len(group) > 1 for i in group
        ]
    gains = yield from _gains(groups, changes)
    return _apply(groups, [changes[int(np.argmax(gains))]])


def total(cost: Memo, groups: Groups) -> float:
    """What the partition costs."""
    return float(cost(groups).sum())


def _onward(cost: Memo, groups: Groups, m: int, budget: int) -> Asking:
    """From a partition to its cheapest neighbour of ``m`` groups, and on from there."""
    start = yield from neighbour(groups, m)
    return (yield from improved(cost, start, budget))


def _moves(groups: Groups) -> list[_Move]:
    return [
        _Move(dataset, source, target)
        for source, group in enumerate(groups)
        for dataset in group
        for target in range(len(groups))
        if target != source
    ]


def _move(groups: Groups, move: _Move) -> Change:
    """As a change. Moving a group's only member is a merge: it has one new group, and only ranks swaps."""
    rest, larger = _without(groups[move.source], move.dataset), _join(groups[move.target], (move.dataset,))
    return Change((move.source, move.target), (rest, larger) if rest else (larger,))


def _swaps(groups: Groups, moves: list[_Move], gains: np.ndarray) -> list[Change]:
    """The swaps whose two moves, each by itself, promise most: four a dataset, so all of them for up to 9 datasets."""
    gain = {(move.dataset, move.target): value for move, value in zip(moves, gains, strict=True)}
    promise = {
        (i, a, j, b): gain[i, b] + gain[j, a]
        for b in range(len(groups))
        for a in range(b)
        for i in groups[a]
        for j in groups[b]
    }
    most = _SWAPS_PER_DATASET * sum(map(len, groups))
    chosen = sorted(promise, key=promise.__getitem__, reverse=True)[:most]
    return [
        Change((a, b), (_join(_without(groups[a], i), (j,)), _join(_without(groups[b], j), (i,))))
        for i, a, j, b in chosen
    ]


def _gains(groups: Groups, changes: Sequence[Change]) -> Generator[list[Group], np.ndarray, np.ndarray]:
    """How much each change saves, float64 [len(changes)]: one batch."""
    costs = yield [*groups, *(group for change in changes for group in change.new)]
    now, new = np.split(costs, [len(groups)])
    ends = np.cumsum([len(change.new) for change in changes], dtype=int)
    sums = np.concatenate([[0.0], np.cumsum(new)])
    after = sums[ends] - sums[ends - [len(change.new) for change in changes]] if changes else np.zeros(0)
    return np.array([now[list(change.where)].sum() for change in changes]) - after


def _improving(gains: np.ndarray, changes: Sequence[Change]) -> list[Change]:
    """The changes worth making, best first."""
    return [changes[i] for i in np.argsort(-gains, kind="stable") if gains[i] > _WORTH_IT]


def _apply(groups: Groups, changes: Sequence[Change]) -> Groups:
    """Make the changes in order, leaving out those that touch a group already changed."""
    left = dict(enumerate(groups))
    new: list[Group] = []
    for change in changes:
        if all(where in left for where in change.where):
            for where in change.where:
                del left[where]
            new += change.new
    return canonical([*left.values(), *new])


def _join(first: Group, second: Group) -> Group:
    return tuple(sorted(first + second))


def _without(group: Group, dataset: int) -> Group:
    return tuple(i for i in group if i != dataset)
