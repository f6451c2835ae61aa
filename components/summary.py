"""What a run was about, as one dictionary: put together from the records its steps left in the store.

It can be made at any point of a run; what has not happened yet is simply not there.
"""

import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from components import __version__
from components.artifacts import LIBRARIES, find
from components.config import RunConfig
from components.git_sha import git_sha
from components.members import is_group, is_member
from components.object_store import ObjectStore
from components.step import read_records

ORDER = (
    "open_run", "prepare", "changes", "warm_start", "extract", "estimate", "partition",
    "train", "boost", "weigh", "servable", "evaluate", "register", "promote",
    "linearity", "sample", "select", "fine_tune", "judge", "confirm", "close_run",
)  # fmt: skip


def assemble(store: ObjectStore, run_name: str, config: RunConfig) -> dict[str, Any]:
    """The summary of a run as far as it has come.

    Returns:
        The keys of ``summary.json``; those of steps that have not ended are missing.
    """
    records = sorted(read_records(store, run_name), key=lambda record: (ORDER.index(record["step"]), record["part"]))
    made = {
        f"dataset/{label}" if record["step"] == "prepare" else label: entry  # a dataset may be called "start"
        for record in records
        for label, entry in record["artifacts"].items()
    }
    facts = _Facts(store, made)
    summary: dict[str, Any] = {
        "name": config.name,
        "run_id": run_name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "settings": config.model_dump(mode="json"),
        "versions": {"loraloom": __version__, "git_sha": git_sha(), "python": platform.python_version()}
        | {name: version(name) for name in (*LIBRARIES, "kfp", "mlflow")},
        "datasets": next((_datasets(facts, made, record) for record in records if record["step"] == "prepare"), []),
        "cost": _cost(records, facts, made),
        "artifacts": {label: {"key": entry["key"], "digest": entry["digest"]} for label, entry in made.items()},
    }
    summary |= _plan(facts, made) | _training(records, facts, made)
    for record in records:
        if record["step"] == "open_run":
            summary["mlflow"] = {**record["facts"], "adapters": _adapters(records)}
        elif record["step"] == "changes" and not record["facts"]["changed"]:
            summary["unchanged"] = {key: record["facts"][key] for key in ("version", "reason")}
        elif record["step"] == "evaluate":
            summary |= record["facts"].get("evaluation", {})
            if record["facts"].get("drift"):
                summary["drift"] = record["facts"]["drift"]
        elif record["step"] == "register":
            summary["mlflow"]["ensemble_version"] = record["facts"]["version"]
            summary["mlflow"]["ensemble_changed"] = record["facts"]["changed"]
        elif record["step"] in ("judge", "select", "confirm"):
            summary |= record["facts"]
        elif record["step"] == "promote":
            summary["promotion"] = record["facts"]
    return summary


class _Facts:
    """Facts of artifacts by label, each artifact looked up once: that verifies its files."""

    def __init__(self, store: ObjectStore, made: Mapping[str, Mapping[str, str]]) -> None:
        self._store, self._made = store, made
        self._known: dict[str, dict[str, Any]] = {}

    def __getitem__(self, label: str) -> dict[str, Any]:
        if label not in self._known:
            artifact = find(self._store, self._made[label]["key"])
            self._known[label] = artifact.facts if artifact is not None else {}
        return self._known[label]


def _datasets(facts: _Facts, made: Mapping[str, Any], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The datasets in their order; ``truncated`` is None until their texts have been tokenized."""
    listed = []
    for name, entry in record["artifacts"].items():
        known, features = facts[f"dataset/{name}"], f"features/{name}"
        listed.append(
            {
                "name": name,
                "metric": known["metric"],
                "labels": known["labels"],
                "rows": known["counts"]["rows"],
                "dropped": known["counts"]["dropped"],
                "truncated": facts[features].get("truncated") if features in made else None,
                "digest": entry["digest"],
                "entropy": known["entropy"],
            }
        )
    return listed


def _plan(facts: _Facts, made: Mapping[str, Any]) -> dict[str, Any]:
    """What is known once the partition is."""
    plan: dict[str, Any] = {}
    if "affinity" in made:
        known = facts["affinity"]
        plan["affinity"] = {
            key: known[key] for key in ("datasets", "matrix", "standard_errors", "subsets", "lambda_chosen")
        }
    if "partition" in made:
        known = facts["partition"]
        plan["groups"], plan["partition"] = known["groups"], known
    return plan


def _training(records: Iterable[Mapping[str, Any]], facts: _Facts, made: Mapping[str, Any]) -> dict[str, Any]:
    """Curves, boosting and weights, as far as there are any."""
    records = list(records)
    found: dict[str, Any] = {}
    curves = {record["part"]: record["facts"]["curve"] for record in records if record["step"] == "train"}
    if curves:
        found["curves"] = curves
    boosting = {name: fall for record in records if record["step"] == "boost" for name, fall in record["facts"].items()}
    if boosting:
        found["boosting"] = boosting
    if "weights" in made:
        known = facts["weights"]
        found["weights"] = {
            "datasets": list(known["rows"]),
            "members": known["members"],
            "matrix": [row["weights"] for row in known["rows"].values()],
            "temperatures": [row["temperature"] for row in known["rows"].values()],
        }
    return found


def _adapters(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    adapters = {r["part"]: r["facts"]["mlflow"] for r in records if r["step"] == "train" and "mlflow" in r["facts"]}
    for record in records:
        if record["step"] == "boost":
            adapters |= {name: fall["mlflow"] for name, fall in record["facts"].items() if "mlflow" in fall}
    return adapters


def _cost(records: list[dict[str, Any]], facts: _Facts, made: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds, memory and FLOPs by step, and what the ensemble costs over one multi-task adapter.

    A step's FLOPs are those that this run spent; steps that only measure have none. ``ours`` is what the result took,
    whichever run spent it: warm start, look-ahead, extraction, the plan (estimates and the search for groups), all
    members and boosters, also where they (of features: single rows) were reused, and no evaluation; ``multitask`` the
    multi-task adapter trained from theta*, part of ``ours`` as it is a member; None where it was not asked for, or is
    the only group's.
    """
    keys = ("step", "part", "seconds", "peak_memory_bytes", "flops", "reused")
    cost: dict[str, Any] = {"steps": [{key: record[key] for key in keys} for record in records]}
    spent = {label: facts[label].get("flops", 0) for label in made if label.split("/")[0] in _COSTED}
    start = facts["start"] if "start" in made else {}  # what it took when it was made, by whichever run
    cost["warm_start"] = {key: start.get(key) for key in ("flops", "rows", "peak_memory_bytes")}
    ours = {label: flops for label, flops in spent.items() if _is_ours(label)}
    if not any(label.startswith("adapter/") for label in made):
        return cost
    tried = sum(
        fall["flops"] for r in records if r["step"] == "boost" for fall in r["facts"].values() if not fall["kept"]
    )
    total, multitask = sum(ours.values()) + tried, spent.get("adapter/multitask")
    cost["training_flops"] = {
        "ours": total,
        "multitask": multitask,
        "warm_start": ours.get("start", 0) + ours.get("point", 0),
        "extract": sum(flops for label, flops in ours.items() if label.startswith("features/")),
        "plan": ours.get("affinity", 0) + ours.get("partition", 0),
        "groups": sum(flops for label, flops in ours.items() if is_group(label.removeprefix("adapter/"))),
        "boosters": sum(flops for label, flops in ours.items() if label.startswith("booster/")) + tried,
    }
    cost["extra_flops_share"] = total / multitask - 1 if multitask else None
    return cost


_COSTED = ("start", "point", "features", "affinity", "partition", "adapter", "booster")


def _is_ours(label: str) -> bool:
    kind, _, name = label.partition("/")
    return kind != "adapter" or is_member(name)
