"""Put the ensemble folder together: theta*, every group's adapter and boosters, weights and their description."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, git_sha
from components.base_model import model_digest
from components.inputs import START, Prepared
from components.label_tokens import known_label_tokens
from components.step import Step

PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


def write_ensemble(
    step: Step,
    prepared: Prepared,
    groups: list[list[str]],
    references: Mapping[str, str],
    runs: Mapping[str, str],
    folder: Path,
) -> dict[str, Any]:
    """Fill ``folder``; returns what ``ensemble.json`` says.

    Args:
        references: everything the steps before passed on.
        runs: MLflow run of each group's adapter.
    """
    config = step.config
    weighed = step.load(references, "weights")
    described: dict[str, Any] = {
        "schema": 1,
        "name": config.name,
        "base": {
            "id": config.model.id,
            "revision": config.model.revision,
            "digest": model_digest(config.model),
            "quantization": config.model.quantization,
            "dtype": config.model.dtype,
            "max_length": config.model.max_length,
        },
        "datasets": {name: _dataset(step, prepared, name) for name in prepared.names},
        "start": _copy(step.load(references, START), folder, START),
        "groups": [_group(step, references, f"group-{k}", members, runs, folder) for k, members in enumerate(groups)],
        "weights": {name: row["weights"] for name, row in weighed.facts["rows"].items()},
        "artifacts": {
            kind: {"key": references[label], "digest": step.load(references, label).digest}
            for kind, label in (
                ("affinity", "affinity"),
                ("partition", "partition"),
                ("weights", "weights"),
                ("predictions", "evaluation"),
            )
        },
        "git_sha": git_sha(),
        "seed": config.seed,
    }
    (folder / "ensemble.json").write_text(json.dumps(described, indent=1, sort_keys=True))
    return described


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


def _group(
    step: Step, references: Mapping[str, str], name: str, members: list[str], runs: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    boosters = sorted(label for label in references if label.startswith(f"booster/{name}-"))
    return {
        "name": name,
        "datasets": members,
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


def _copy(artifact: Artifact, folder: Path, name: str) -> dict[str, str]:
    target = folder / "adapters" / name
    target.mkdir(parents=True)
    for file in PEFT_FILES:
        shutil.copyfile(artifact.folder / file, target / file)
    return {"folder": f"adapters/{name}", "digest": artifact.digest}
