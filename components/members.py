"""An ensemble's members: the adapters that may answer any dataset, with the datasets each was trained on.

They are the groups' adapters and, where it is trained to compare with, the multi-task adapter: it costs nothing more
then, and on few rows it is often the best single answer.
"""

from collections.abc import Mapping, Sequence

MULTITASK = "multitask"


def members_of(groups: Sequence[Sequence[str]], baselines: Sequence[str]) -> dict[str, list[str]]:
    """Name -> datasets, groups first. A multi-task adapter whose datasets are a group's is that group's adapter.

    Args:
        baselines: as the config's ``ensemble.baselines``.
    """
    found = {f"group-{k}": list(group) for k, group in enumerate(groups)}
    if MULTITASK in baselines and len(groups) > 1:
        found[MULTITASK] = [name for group in groups for name in group]
    return found


def first_choice(members: Mapping[str, Sequence[str]], dataset: str) -> str:
    """The member that answers ``dataset`` unless validation rows speak for others: the multi-task adapter, or without
    one the own group's.
    """
    return MULTITASK if MULTITASK in members else own_group(members, dataset)


def own_group(members: Mapping[str, Sequence[str]], dataset: str) -> str:
    """The group that ``dataset`` is in."""
    return next(name for name, datasets in members.items() if name != MULTITASK and dataset in datasets)
