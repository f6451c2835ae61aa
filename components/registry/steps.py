"""The steps `register` and `promote`."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components import tracking
from components.adapter_log import record_adapter
from components.alerts import alert
from components.inputs import START, Prepared, read_datasets
from components.members import members_of
from components.model_versions import adapter_version, tag_version
from components.reconnect import reconnect
from components.registry import changes
from components.registry.ensemble_folder import write_ensemble
from components.registry.gate import Comparison, Verdict, decide, unchanged, with_served
from components.registry.register import (
    ANSWERS,
    CHAMPION,
    is_judged,
    promote,
    register_ensemble,
    served_merged,
    with_alias,
)
from components.step import Step, read_records, read_references


def register(
    config: str,
    run_name: str,
    context: str,
    datasets: Path,
    start: Path,
    estimates: Path,
    partition: Path,
    adapters: list[Path],
    boosters: list[Path],
    weights: Path,
    servable: Path,
    evaluation: Path,
) -> str:
    """Register the ensemble with the alias ``challenger``, unless a version holds this very ensemble.

    Returns:
        A JSON object: ``version``, ``changed``.
    """
    with Step("register", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        single = read_references([start, estimates, partition, weights, servable, evaluation])
        references = read_references(adapters) | read_references(boosters) | single
        groups: list[list[str]] = step.load(references, "partition").facts["groups"]
        members = members_of(groups, step.config.ensemble.baselines)
        client = reconnect(str(step.config.tracking.uri))
        _record_start(step, context, prepared, references)
        runs, versions = _where_adapters_are(step, client, members, references)
        averages = step.load(references, "evaluation").facts["average"]
        with tempfile.TemporaryDirectory(prefix="loraloom-ensemble-") as folder:
            write_ensemble(step, prepared, members, references, runs, Path(folder))
            registered = register_ensemble(
                client,
                step.config.name,
                json.loads(context)["run_id"],
                Path(folder),
                adapters=versions,
                metrics={method: entry["metric"]["value"] for method, entry in averages.items()},
            )
        step.facts = {"version": registered.version, "changed": registered.changed}
        step.say(f"ensemble version {registered.version}" + ("" if registered.changed else " is unchanged"))
        return json.dumps(step.facts)


def promote_step(config: str, run_name: str, context: str, registered: str) -> str:
    """Let the gate decide, and tell whoever has to know.

    Returns:
        The decision: promoted, refused, manual or unchanged.
    """
    with Step("promote", config, run_name) as step:
        client = reconnect(str(step.config.tracking.uri))
        known, version = json.loads(context), json.loads(registered)["version"]
        facts = {record["step"]: record["facts"] for record in read_records(step.store, run_name)}
        verdict = _judge(step, client, known["champion"].get("version"), version, facts["evaluate"]["evaluation"])
        tag_version(client, step.config.name, version, changes.TAG, facts["changes"]["made_from"])
        tracking.set_tags(client, known["run_id"], {"loraloom.outcome": verdict.decision})
        step.facts = {"decision": verdict.decision, "reason": verdict.reason, "numbers": verdict.numbers}
        step.say(f"{verdict.decision}: {verdict.reason}")
        return verdict.decision


def _judge(
    step: Step, client: tracking.MlflowClient, champion: str | None, version: str, evaluation: dict[str, Any]
) -> Verdict:
    settings = step.config.registry
    if is_judged(client, step.config.name, version, settings):
        return unchanged(version)
    serving = with_alias(client, step.config.name, CHAMPION)
    if (serving.version if serving else None) != champion:
        # A person moved the alias while the run was at work. Not recorded as a verdict: the next run compares anew.
        moved = Verdict("refused", "the champion changed while this run compared with the one before; run again")
        _tell(step, version, moved)
        return moved
    found: dict[str, Comparison] = {entry["baseline"]: entry for entry in evaluation["comparisons"]}
    tags = client.get_model_version(step.config.name, version).tags
    before = client.get_model_version(step.config.name, champion).tags.get(ANSWERS) if champion else None
    verdict = decide(
        settings,
        champion_version=champion,
        champion=found.get("champion"),
        multitask=found.get("multitask"),
        same_answers=before is not None and before == tags.get(ANSWERS),
    )
    verdict = with_served(verdict, served_merged(tags))
    _tell(step, version, verdict)  # before it is recorded: after a kill in between it is told twice, not never
    promote(client, step.config.name, version, verdict, settings)
    return verdict


def _tell(step: Step, version: str, verdict: Verdict) -> None:
    """A refusal and a version that waits need a person."""
    name, details = step.config.name, {"version": version, "reason": verdict.reason, "numbers": verdict.numbers}
    if verdict.decision == "refused":
        text = f"version {version} of {name} was refused: {verdict.reason}"
        step.say_if(alert(step.config, step.run_name, "promotion_refused", text, details))
    elif verdict.decision == "manual":
        text = f"version {version} of {name} waits for a person: loraloom promote {version} -m WHY"
        step.say(text)
        step.say_if(alert(step.config, step.run_name, "promotion_waits", text, details))


def _record_start(step: Step, context: str, prepared: Prepared, references: dict[str, str]) -> None:
    """theta* is an adapter too: the ensemble needs it, so it has a run and a version like the others."""
    theta = step.load(references, START)
    names = [name for name in prepared.names if name in theta.facts["datasets"]]
    curve = theta.facts.get("curve", [])
    record_adapter(
        step, context, name=START, kind=START, artifact=theta, curve=curve, datasets=names, prepared=prepared
    )


def _where_adapters_are(
    step: Step, client: tracking.MlflowClient, members: Iterable[str], references: dict[str, str]
) -> tuple[dict[str, str], dict[str, int]]:
    """MLflow's run of each member's adapter, and the version of everything the ensemble ships."""
    shipped = {name: f"adapter/{name}" for name in members} | {START: START}
    shipped |= {label.replace("/", "-"): label for label in references if label.startswith("booster/")}
    runs, versions = {}, {}
    for name, label in shipped.items():
        digest = step.load(references, label).digest
        found = adapter_version(client, step.config.name, digest)
        if found is None:
            raise RuntimeError(f"{name} was made but never registered")
        runs[name], versions[name] = found.run_id or "", int(found.version)
    return runs, versions
