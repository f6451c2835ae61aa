"""An ensemble's members: the adapters that may answer any dataset, with the datasets each was trained on.

They are the groups' adapters and, where it is trained, the multi-task adapter. A run that trains it to compare with has
it for nothing, and on few rows it is often the best single answer.
"""

from collections.abc import Mapping, Sequence

MULTITASK, GROUP = "multitask", "group-"


def members_of(groups: Sequence[Sequence[str]], baselines: Sequence[str]) -> dict[str, list[str]]:
    """Name -> datasets, groups first. A multi-task adapter whose datasets are a group's is that group's adapter.

    Args:
        baselines: as the config's ``ensemble.baselines``.
    """
    found = {f"{GROUP}{k}": list(group) for k, group in enumerate(groups)}
    if MULTITASK in baselines and len(groups) > 1:
        found[MULTITASK] = [name for group in groups for name in group]
    return found


def alone(dataset: str) -> str:
    """The adapter on ``dataset`` alone, where no group has just that one."""
    return f"only-{dataset}"


def is_group(name: str) -> bool:
    """Whether an adapter is a group's."""
    return name.startswith(GROUP)


def is_member(name: str) -> bool:
    """Whether an adapter may answer any dataset."""
    return name == MULTITASK or is_group(name)


def first_choice(members: Mapping[str, Sequence[str]], dataset: str) -> str:
    """The member that answers ``dataset`` unless validation rows speak for others: the multi-task adapter, or without
    one the own group's.
    """
    return MULTITASK if MULTITASK in members else own_group(members, dataset)


def own_group(members: Mapping[str, Sequence[str]], dataset: str) -> str:
    """The group that ``dataset`` is in."""
    return next(name for name, datasets in members.items() if is_group(name) and dataset in datasets)
