"""The step `changes`: whether anything changed since a version got its verdict. If not, the run ends here.

It comes right after `prepare`, as soon as the datasets' digests are known, and loads neither model nor torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import tracking
from components.artifacts import SCHEMA_VERSION, digest_of
from components.base_model import model_identity
from components.config import RunConfig
from components.model_versions import find_version
from components.reconnect import reconnect
from components.registry.aliases import ROLLED_BACK
from components.registry.register import is_judged
from components.step import Step, read_references

TAG = "made_from"  # of a version: digest of all that the run which made or met it was made from
# Where a run works and whom it tells changes nothing in what it makes; datasets and model go in by content.
ELSEWHERE = {
    "name", "tracking", "storage", "images", "resources", "cluster", "schedule", "drift", "alerts", "datasets", "model",
    "validation", "selection",
}  # fmt: skip


def run(config: str, run_name: str, context: str, datasets: Path) -> str:
    """Look for a version that was made from the same datasets, base model and settings and has its verdict.

    Returns:
        "yes": something changed, go on; "no": nothing did.
    """
    with Step("changes", config, run_name) as step:
        references = read_references(datasets)
        prepared = {name: step.load(references, name) for name in references}
        contents = [[name, artifact.digest, artifact.facts["metric"]] for name, artifact in prepared.items()]
        made_from = digest_of({"schema": SCHEMA_VERSION, "datasets": contents, **_settings(step.config)})
        client = reconnect(str(step.config.tracking.uri))
        found = find_version(client, step.config.name, TAG, made_from)
        step.facts = {"made_from": made_from, "changed": True}
        if found is None or not is_judged(client, step.config.name, str(found.version), step.config.registry):
            return "yes"
        reason = f"nothing changed since version {found.version} was made; it was {_verdict(found.tags)}"
        step.facts |= {"changed": False, "version": str(found.version), "reason": reason}
        step.say(f"{reason}; the run ends here and registers nothing")
        tracking.set_tags(client, json.loads(context)["run_id"], {"loraloom.outcome": "unchanged"})
        return "no"


def _verdict(tags: Mapping[str, str]) -> str:
    if ROLLED_BACK in tags:
        return f"rolled back ({tags[ROLLED_BACK]})"
    if "gate.decision" not in tags:
        return "promoted by a person before any verdict"
    return f"{tags['gate.decision']} ({tags['gate.reason']})"


def _settings(config: RunConfig) -> dict[str, Any]:
    """Everything else that decides what a run makes."""
    how = config.model.model_dump(include={"quantization", "dtype", "max_length"})
    settings = config.model_dump(mode="json", exclude=ELSEWHERE)
    return {"files": model_identity(config.model), "model": how, "settings": settings}
