"""Tell MLflow of an adapter or booster: a child run, the PEFT folder, and a version of ``<name>-adapters``."""

import json
from collections.abc import Mapping, Sequence

from components import tracking
from components.artifacts import Artifact
from components.inputs import Prepared
from components.model_versions import adapter_version, register_adapter
from components.reconnect import reconnect
from components.step import Step


def record_adapter(
    step: Step,
    context: str,
    *,
    name: str,
    kind: str,
    artifact: Artifact,
    curve: Sequence[Mapping[str, float]],
    datasets: Sequence[str],
    prepared: Prepared,
) -> dict[str, str]:
    """Where MLflow has an adapter: its run and version. One that is registered already is only looked up.

    Args:
        context: what `open_run` passed on.
        kind: adapter or booster.
        curve: its training curve, possibly empty.
        datasets: names of the datasets it was fitted to.
    """
    config = step.config
    client = reconnect(str(config.tracking.uri))
    known = adapter_version(client, config.name, artifact.digest)
    if known is not None:
        return {"run_id": known.run_id or "", "version": str(known.version)}
    tags = {"loraloom.kind": kind, "loraloom.digest": artifact.digest, "loraloom.key": artifact.key}
    with tracking.child_run(client, json.loads(context)["run_id"], name, tags) as run_id:
        tracking.log_params(
            client, run_id, {"datasets": list(datasets), "training": config.training.model_dump(), "seed": config.seed}
        )
        tracking.log_curve(client, run_id, curve)
        numbers = {key: value for key, value in artifact.facts.items() if isinstance(value, int | float)}
        tracking.log_metrics(client, run_id, numbers)
        tracking.log_datasets(client, run_id, [dataset_use(step, prepared, dataset) for dataset in datasets])
        tracking.log_folder(client, run_id, artifact.folder, kind, artifact.digest)
        about = {"kind": kind, "name": name, "datasets": json.dumps(list(datasets)), "key": artifact.key}
        version = register_adapter(client, config.name, run_id, kind, artifact.digest, about)
    return {"run_id": run_id, "version": str(version)}


def dataset_use(step: Step, prepared: Prepared, name: str, context: str = "training") -> tracking.DatasetUse:
    """A prepared dataset as MLflow's lineage has it."""
    return tracking.DatasetUse(
        name=name,
        digest=prepared.digests[name],
        uri=step.store.uri(f"{prepared.keys[name]}/manifest.json"),
        rows=prepared[name].counts["rows"],
        context=context,
    )
