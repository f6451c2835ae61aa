"""From a registered version back to everything it was made from."""

import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from components.errors import UserError
from components.model_versions import adapters_of
from components.registry.aliases import numbered
from components.tracking import MlflowClient


def lineage(client: MlflowClient, name: str, number: str) -> dict[str, Any]:
    """Walk back from version ``number`` of ``name``.

    Every adapter's digest is compared with its own registered version, and every dataset's with the inputs that the
    run recorded, so that what is returned was found at both ends.

    Returns:
        A JSON-able dictionary: ``model``, ``version``, ``ensemble_digest``, ``git_sha``, ``seed``, ``base``, ``start``,
        ``run``, ``datasets`` (name -> digest), ``artifacts`` (affinity, partition...: key, digest, uri), ``adapters``
        (name -> version, digest, run_id, uri, datasets, boosters, git_sha), ``gate``, ``metrics``.

    Raises:
        UserError: the version, or something it was made from, is not there any more or has another digest.
    """
    found = numbered(client, name, number)
    tags = found.tags
    run = client.get_run(found.run_id or "")
    problems: list[str] = []
    datasets = {key.removesuffix(".digest"): value for key, value in _below(tags, "dataset").items()}
    recorded = _inputs(run)
    for dataset, digest in datasets.items():
        if recorded.get(dataset) != digest:
            problems.append(f"dataset {dataset}: the version says {digest}, its run {recorded.get(dataset)}")
    adapters = {}
    for adapter, settings in _grouped(_below(tags, "adapter")).items():
        adapters[adapter] = _adapter(client, adapters_of(name), adapter, settings, problems)
    if problems:
        raise UserError(
            f"version {number} of {name} cannot be walked back",
            remedy="something was deleted or replaced in MLflow; register the ensemble again",
            problems=tuple(problems),
        )
    return {
        "model": name,
        "version": number,
        "aliases": list(found.aliases),
        **{key: tags[key] for key in ("ensemble_digest", "git_sha", "seed", "loraloom_version")},
        "base": _below(tags, "base"),
        "start": tags["start.digest"],
        "run": {"id": found.run_id, "name": run.info.run_name, "experiment_id": run.info.experiment_id},
        "datasets": datasets,
        "artifacts": _artifacts(tags, run.info.artifact_uri, run.data.tags),
        "adapters": adapters,
        "gate": _below(tags, "gate"),
        "metrics": {key: float(value) for key, value in _below(tags, "metric").items()},
    }


def _below(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The tags ``prefix.x`` as ``x``."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tags.items() if key.startswith(f"{prefix}.")}


def _grouped(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """``group-0.digest`` -> ``{"group-0": {"digest": ..}}``."""
    grouped: dict[str, dict[str, str]] = {}
    for key, value in tags.items():
        name, _, what = key.rpartition(".")
        grouped.setdefault(name, {})[what] = value
    return grouped


def _inputs(run: Run) -> dict[str, str]:
    """Dataset name -> our whole digest, as the run recorded its inputs."""
    entries = run.inputs.dataset_inputs if run.inputs else []
    return {entry.dataset.name: tag.value for entry in entries for tag in entry.tags if tag.key == "digest"}


def _adapter(
    client: MlflowClient, model: str, group: str, settings: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    facts: dict[str, Any] = {**settings}
    for key in ("datasets", "boosters"):
        if key in settings:
            facts[key] = json.loads(settings[key])
    if "version" not in settings:
        problems.append(f"adapter {group} was never registered")
        return facts
    try:
        found = client.get_model_version(model, settings["version"])
        run = client.get_run(found.run_id or "")
    except MlflowException as error:
        problems.append(f"adapter {group}: {error}")
        return facts
    digest = found.tags.get("digest")
    if settings.get("digest", digest) != digest:
        problems.append(f"adapter {group}: version {found.version} of {model} has another digest, {digest}")
    inputs = _inputs(run)
    git_sha = run.data.tags.get("mlflow.source.git.commit")
    return {
        **facts,
        "digest": digest,
        "run_id": found.run_id,
        "uri": found.source,
        "inputs": inputs,
        "git_sha": git_sha,
    }


def _artifacts(tags: Mapping[str, str], root: str, run_tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Key and digest of every artifact the version names, and its address where the run logged a copy of it."""
    found = {}
    for kind in sorted(key.removesuffix(".key") for key in tags if key.endswith(".key")):
        found[kind] = {"key": tags[f"{kind}.key"], "digest": tags[f"{kind}.digest"]}
        if run_tags.get(f"digest.{kind}") == tags[f"{kind}.digest"]:
            found[kind]["uri"] = f"{root}/{kind}"
    return found
