"""The versions of an ensemble: what was new in each, how it did, what became of it and why."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from components.members import is_member
from components.registry.aliases import ROLLED_BACK, moves, versions
from components.tracking import MlflowClient


def history(client: MlflowClient, name: str) -> dict[str, Any]:
    """All versions and all moves of the champion, oldest first, JSON-able.

    Returns:
        ``name``; ``versions``: ``version``, ``created``, ``run_id``, ``aliases``, ``metrics`` (method -> average),
        ``against`` (the champion it was judged against, or None), ``difference`` (to that one, or None), ``decision``,
        ``reason``, ``rolled_back`` (why, or None), ``changed``; ``moves``, see ``aliases.Move``.

        ``changed`` compares with the champion it was judged against, else with the version before: datasets ``added``,
        ``removed`` and ``changed``, members ``trained`` anew, and whether ``start`` (theta*) or ``base`` are others;
        None for the first version.
    """
    found = versions(client, name)
    tags = {str(version.version): version.tags for version in found}
    listed: list[dict[str, Any]] = []
    for version in found:
        against = version.tags.get("gate.against")
        reference = tags.get(against or "") or (tags[listed[-1]["version"]] if listed else None)
        listed.append(_described(version) | {"changed": _changed(version.tags, reference) if reference else None})
    return {"name": name, "versions": listed, "moves": [vars(move) for move in moves(client, name)]}


def _described(version: ModelVersion) -> dict[str, Any]:
    tags = version.tags
    numbers = json.loads(tags.get("gate.numbers", "{}"))
    against = tags.get("gate.against")
    return {
        "version": str(version.version),
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "aliases": list(version.aliases),
        "metrics": {key.removeprefix("metric."): float(tags[key]) for key in tags if key.startswith("metric.")},
        "against": None if against == "nobody" else against,
        "difference": numbers.get("difference") if numbers.get("baseline") == "champion" else None,
        "decision": tags.get("gate.decision"),
        "reason": tags.get("gate.reason"),
        "rolled_back": tags.get(ROLLED_BACK),
    }


def _changed(tags: Mapping[str, str], reference: Mapping[str, str]) -> dict[str, Any]:
    now, before = _digests(tags, "dataset."), _digests(reference, "dataset.")
    trained, before_trained = (_members(of) for of in (tags, reference))
    return {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
        "trained": sorted(name for name, digest in trained.items() if digest not in before_trained.values()),
        "start": tags["start.digest"] != reference["start.digest"],
        "base": tags["base.digest"] != reference["base.digest"],
    }


def _members(tags: Mapping[str, str]) -> dict[str, str]:
    """Digests of the adapters that may answer any dataset; theta* and boosters have tags too."""
    return {name: digest for name, digest in _digests(tags, "adapter.").items() if is_member(name)}


def _digests(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    """``<prefix>x.digest`` as ``x``."""
    return {
        key.removeprefix(prefix).removesuffix(".digest"): value
        for key, value in tags.items()
        if key.startswith(prefix) and key.endswith(".digest")
    }
