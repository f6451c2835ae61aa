"""The step `warm_start`: theta*, where every adapter begins, and the point ahead of it where gradients are taken.

At the raw initialisation LoRA's B is zero and first-order estimates say nothing, so the default is one brief pass over
a sample of every dataset (GradEx's meta-initialisation). theta* is pinned: while base model, LoRA settings, recipe and
templates stay the same, a later run takes the one there is, so that features and adapters stay valid, unless too many
datasets are new or a new one is not understood at all there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact, digest_of, load
from components.base_model import model_inputs
from components.gradients.lookahead import look_ahead
from components.gradients.multitask_pass import multitask_pass, pass_settings
from components.inputs import START, Prepared, outputs_digest, read_datasets
from components.label_logits import obtain_logits
from components.prepared import PreparedDataset
from components.step import Step, peak_memory, read_references
from components.tables import row_losses

if TYPE_CHECKING:
    from components.on_demand import OnDemand

NEW_SHARE = 1 / 3  # more new datasets than this, and theta* is made anew
KIND = "start"


def run(config: str, run_name: str, context: str, datasets: Path, start: Path) -> None:
    """Find the pinned theta* or make one; pass it on as ``start``, and as ``point`` where gradients are taken."""
    from components.on_demand import OnDemand

    with Step("warm_start", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        work = OnDemand(step)
        theta = _pinned(step, prepared, work, json.loads(context)["champion"].get("start", ""))
        if theta is None:
            theta = _make(step, prepared, OnDemand(step))
        else:
            step.adopt(START, theta)
        look_ahead(step, prepared, theta, OnDemand(step))
        step.facts = {"theta": theta.digest, "made_from": theta.facts["datasets"]}
        step.pass_on(start)


def recipe(step: Step) -> dict[str, Any]:
    """What theta* depends on besides the datasets."""
    config = step.config
    return {
        "model": model_inputs(config.model),
        "lora": config.lora.model_dump(),
        "warm_start": config.warm_start.model_dump(exclude={"renew", "lookahead"}),
        **pass_settings(config),
    }


def _pinned(step: Step, prepared: Prepared, work: "OnDemand", champion: str) -> Artifact | None:
    """The theta* with the champion's digest, else the newest in the store, if it still serves."""
    if step.config.warm_start.renew:
        return None
    shelf = f"{KIND}/{digest_of(recipe(step))[:24]}"
    manifests = [key for key in step.store.keys(f"{shelf}/") if key.endswith("/manifest.json")]
    found = [load(step.store, key.removesuffix("/manifest.json")) for key in manifests]
    reasons: list[str] = []
    for theta in sorted(found, key=lambda theta: (theta.digest == champion, theta.facts["order"]), reverse=True):
        reason = _unfit(step, prepared, theta, work)
        if reason is None:
            return theta
        step.withhold(START)  # its logits
        reasons.append(reason)
    if reasons:
        step.say(f"theta* is made anew: {reasons[0]}")
    return None


def _unfit(step: Step, prepared: Prepared, theta: Artifact, work: "OnDemand") -> str | None:
    """Why ``theta`` does not serve these datasets, or None."""
    known: Mapping[str, str] = theta.facts["datasets"]
    changed = [d.name for d in prepared.datasets if d.name in known and known[d.name] != d.rendering]
    if changed:
        return f"template or label words changed: {', '.join(changed)}"
    new = [dataset for dataset in prepared.datasets if dataset.name not in known]
    if len(new) > NEW_SHARE * len(prepared.datasets):
        return f"{len(new)} of {len(prepared.datasets)} datasets are new"
    for dataset in new:
        table = obtain_logits(
            step,
            outputs_digest(step, theta.digest),
            dataset,
            "validation",
            work.logits(theta.folder, dataset, "validation"),
            model=START,
        )
        loss = float(row_losses(table.logits, table.label).mean())
        if not loss < dataset.entropy():
            return f"{dataset.name} is new and its loss there, {loss:.3f}, is no better than guessing"
    return None


def _make(step: Step, prepared: Prepared, work: "OnDemand") -> Artifact:
    """Train theta* on a sample of every dataset."""
    from components.language_model import attach_adapter, save_adapter

    settings, made_from = step.config.warm_start, recipe(step)
    shelf = f"{KIND}/{digest_of(made_from)[:24]}"
    inputs = {**made_from, "datasets": prepared.digests}

    def write(folder: Path) -> dict[str, Any]:
        model = attach_adapter(work.base, step.config.lora, step.config.seed)
        facts: dict[str, Any] = {
            "datasets": {dataset.name: dataset.rendering for dataset in prepared.datasets},
            "order": len(list(step.store.keys(f"{shelf}/"))),
            "flops": 0,
        }
        if settings.epochs > 0:
            for dataset in prepared.datasets:
                _say_what_answers(step, dataset, work)
            facts |= multitask_pass(
                step, prepared, work, model, settings.epochs, step.config.seed, digest_of(inputs)[:32]
            )
            facts["peak_memory_bytes"] = peak_memory()  # as training will take it; a run that reuses theta* cannot know
        save_adapter(model, folder, work.base)
        return facts

    return step.obtain(START, KIND, inputs, write, key=f"{shelf}/{digest_of(inputs)[:24]}")


def _say_what_answers(step: Step, dataset: PreparedDataset, work: "OnDemand") -> None:
    """Labels that answer with another token than their first."""
    notes = work.examples(dataset, "train").notes
    if notes:
        step.say(
            f"{dataset.name}: {len(notes)} of {len(dataset.words)} labels share their first token with others "
            f"and answer with another one ({'; '.join(notes[:2])}{'; ...' if len(notes) > 2 else ''})"
        )
