"""The champion's groups, fitted to today's datasets.

A partition that serves is kept unless choosing anew is better by more than one paired standard error: small changes in
the data would otherwise reshuffle every group and retrain every adapter for nothing.
"""

from collections.abc import Sequence

from components.partition.groups import Group, Groups, canonical
from components.partition.search import Cost


def adapt(previous: Sequence[Sequence[str]], names: Sequence[str], cost: Cost, most: int) -> Groups | None:
    """Drop datasets that are gone, and put each new one where it costs least: into a group, or alone.

    Args:
        previous: the champion's groups, by name.
        names: today's datasets; the result refers to them by position.
        cost: cost of groups.
        most: a new dataset may stand alone while there are fewer groups than this.

    Returns:
        The partition, or None when none of the champion's datasets is left.
    """
    number = {name: i for i, name in enumerate(names)}
    groups = [tuple(sorted(number[name] for name in group if name in number)) for group in previous]
    groups = [group for group in groups if group]
    if not groups:
        return None
    placed = {i for group in groups for i in group}
    for dataset in sorted(set(number.values()) - placed):
        groups = _place(groups, dataset, cost, alone=len(groups) < most)
    return canonical(groups)


def _place(groups: list[Group], dataset: int, cost: Cost, *, alone: bool) -> list[Group]:
    larger = [tuple(sorted((*group, dataset))) for group in groups]
    extra = cost(larger) - cost(groups)
    best = int(extra.argmin())
    if alone and cost([(dataset,)])[0] < extra[best]:
        return [*groups, (dataset,)]
    return [*groups[:best], larger[best], *groups[best + 1 :]]
