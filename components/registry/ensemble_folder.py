"""Put the ensemble folder together: adapters and boosters, merged ones, the router, weights and their description."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import __version__
from components.adapter_files import PEFT_FILES
from components.artifacts import Artifact
from components.base_model import model_files
from components.git_sha import git_sha
from components.inputs import START, Prepared, point_of
from components.label_tokens import known_label_tokens
from components.serving.description import FILE, SCHEMA, weights_told
from components.step import Step


def write_ensemble(
    step: Step,
    prepared: Prepared,
    members: Mapping[str, list[str]],
    references: Mapping[str, str],
    runs: Mapping[str, str],
    folder: Path,
) -> dict[str, Any]:
    """Fill ``folder``; returns what ``ensemble.json`` says.

    Args:
        members: datasets of each by name.
        references: everything the steps before passed on.
        runs: MLflow run of each member's adapter.
    """
    config = step.config
    weighed, evaluated = step.load(references, "weights"), step.load(references, "evaluation")
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "loraloom_version": __version__,
        "name": config.name,
        "base": _base(step, references, folder),
        "datasets": {name: _dataset(step, prepared, name) for name in prepared.names},
        "start": _copy(step.load(references, START), folder, START),
        "members": [_member(step, references, name, members[name], runs, folder) for name in weighed.facts["members"]],
        **weights_told(weighed.facts["rows"]),
        "merged": _merged(step, references, prepared, folder),
        "router": _router(step, references, folder),
        "artifacts": {
            kind: {"key": artifact.key, "digest": artifact.digest}
            for kind, artifact in (
                ("point", point_of(step, references)),
                ("affinity", step.load(references, "affinity")),
                ("partition", step.load(references, "partition")),
                ("weights", weighed),
                ("predictions", evaluated),
            )
        },
        "results": evaluated.facts["results"],
        "git_sha": git_sha(),
        "seed": config.seed,
    }
    (folder / FILE).write_text(json.dumps(described, indent=1, sort_keys=True))
    return described


def _base(step: Step, references: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Which base model it is, and where it is bundled if it is."""
    config = step.config
    return {
        "id": config.model.id,
        "revision": config.model.revision,
        "digest": step.load(references, START).inputs["model"]["digest"],  # without having its weights here
        "quantization": config.model.quantization,
        "dtype": config.model.dtype,
        "max_length": config.model.max_length,
        "storage": config.model.storage.model_dump() if config.model.storage else None,
        "folder": _bundle(step, folder) if config.registry.bundle_base else None,
    }


def _dataset(step: Step, prepared: Prepared, name: str) -> dict[str, Any]:
    dataset = prepared[name]
    return {
        "template": dataset.template,
        "labels": list(dataset.labels),
        "words": list(dataset.words),
        "label_token_ids": known_label_tokens(step.config.model, dataset),
        "completion": dataset.completion,
        "digest": prepared.digests[name],
        "metric": dataset.metric,
    }


def _member(
    step: Step, references: Mapping[str, str], name: str, datasets: list[str], runs: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    boosters = sorted(label for label in references if label.startswith(f"booster/{name}-"))
    return {
        "name": name,
        "datasets": datasets,
        **_copy(step.load(references, f"adapter/{name}"), folder, name),
        "run_id": runs[name],
        "boosters": [
            {
                **_copy(step.load(references, label), folder, f"booster-{label.removeprefix('booster/')}"),
                "eta": step.config.boosting.shrinkage,
            }
            for label in boosters
        ],
    }


def _bundle(step: Step, folder: Path) -> str:
    target = folder / "base"
    target.mkdir()
    for path in model_files(step.config.model):
        shutil.copyfile(path, target / path.name)
    return "base"


def _merged(step: Step, references: Mapping[str, str], prepared: Prepared, folder: Path) -> dict[str, Any]:
    """The merged adapters by dataset, and where each answers by default: where it rarely differs."""
    described = {}
    for name in prepared.names:
        if f"merged/{name}" in references:
            artifact = step.load(references, f"merged/{name}")
            found = step.load(references, f"disagreement/{name}").facts
            default = f"served/{name}" in references
            described[name] = {
                **_copy(artifact, folder, f"merged-{name}"),
                "rank": artifact.facts["rank"],
                "lost": artifact.facts["lost"],
                "disagreement": {key: found[key] for key in ("labels", "kl", "rows")},
                "default": default,
                "test": step.load(references, f"served/{name}").facts if default else None,
            }
    return described


def _router(step: Step, references: Mapping[str, str], folder: Path) -> dict[str, Any] | None:
    if "router" not in references:
        return None
    artifact = step.load(references, "router")
    (folder / "router").mkdir()
    for file in artifact.manifest["files"]:
        shutil.copyfile(artifact.folder / file, folder / "router" / file)
    return {"folder": "router", "digest": artifact.digest, **artifact.facts}


def _copy(artifact: Artifact, folder: Path, name: str) -> dict[str, str]:
    target = folder / "adapters" / name
    target.mkdir(parents=True)
    for file in PEFT_FILES:
        shutil.copyfile(artifact.folder / file, target / file)
    return {"folder": f"adapters/{name}", "digest": artifact.digest}
