"""The point where gradients are taken: halfway along a further multi-task pass from theta*.

Fine-tunes end far from theta*, and what they have in common is the way in which all datasets pull. A first-order model
is exact at its point only, so it serves them best from the middle of that way: as with the midpoint rule, what is left
out on either side cancels in part. The half is also a mean of two sets of weights, calmer than the pass's own end. What
it gains is measured in ``docs/results.md``. The pass itself is thrown away: every adapter begins at theta*.

The point is pinned with theta*: it stays when datasets change, so that features of those that did not stay valid. It is
made of none but the datasets that theta* was made of, so that a new theta* leaves nothing of a forgotten one behind.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact, digest_of
from components.gradients.multitask_pass import multitask_pass, pass_settings
from components.inputs import POINT, Prepared
from components.step import Step

if TYPE_CHECKING:
    from components.on_demand import OnDemand

HALF = 0.5


def look_ahead(step: Step, prepared: Prepared, theta: Artifact, work: "OnDemand") -> None:
    """Find or make theta*'s point and pass it on as ``point``; nothing where ``warm_start.lookahead`` is 0."""
    settings = step.config.warm_start
    if not settings.lookahead_epochs:
        return
    inputs = {
        "start": theta.key,  # and not its digest: the raw start has the same weights whatever the datasets
        "epochs": settings.lookahead_epochs,
        "samples_per_dataset": settings.samples_per_dataset,
        **pass_settings(step.config),
    }

    known = Prepared(
        [dataset for dataset in prepared.datasets if dataset.name in theta.facts["datasets"]],
        {name: digest for name, digest in prepared.digests.items() if name in theta.facts["datasets"]},
        prepared.keys,
    )

    def write(folder: Path) -> dict[str, Any]:
        from components.language_model import save_adapter

        step.say("looking ahead, for the point where gradients are taken")
        model = work.trainable(theta.folder)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        job = digest_of({**inputs, "datasets": known.digests})[:32]
        facts = multitask_pass(step, known, work, model, settings.lookahead_epochs, step.config.seed + 1, job)
        for name, weight in model.named_parameters():
            if name in before:
                weight.data.lerp_(before[name], HALF)
        save_adapter(model, folder, work.base)
        return {**facts, "datasets": known.digests}

    step.obtain(POINT, POINT, inputs, write)
