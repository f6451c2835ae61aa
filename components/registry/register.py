"""Put an ensemble into MLflow's registry, and set its aliases."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from components import __version__
from components.artifacts import canonical, digest_of
from components.config import RegistryConfig
from components.errors import UserError
from components.model_versions import create_version, first_version, move_alias, only_one, tag_version
from components.registry.aliases import CHALLENGER, CHAMPION, ROLLED_BACK, holder, move, numbered
from components.registry.gate import Verdict
from components.registry.package import log_model
from components.tracking import MlflowClient

# What an ensemble predicts does not depend on these.
INCIDENTAL = ("git_sha", "loraloom_version", "artifacts", "results", "seed", "name")
SERVING_ONLY = ("merged", "router")
ANSWERS = "answers_digest"  # a tag of every version
MERGED = "merged."  # begins the tag of every dataset that has a merged adapter


@dataclass(frozen=True)
class Registered:
    """A version of a registered ensemble.

    Attributes:
        version: its number, as MLflow spells it.
        changed: False where the registry held this very ensemble before this run.
    """

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    changed: bool = True


def answers_digest(description: Mapping[str, Any]) -> str:
    """sha256 of what decides an ensemble's exact predictions: base, templates, labels, adapters by digest, weights and
    temperatures.
    """
    kept = {key: value for key, value in description.items() if key not in SERVING_ONLY}
    return ensemble_digest({**kept, "base": {**kept["base"], "folder": None}})


def ensemble_digest(description: Mapping[str, Any]) -> str:
    """sha256 of what decides an ensemble's exact predictions, and of what is packed for serving it.

    Left out: names, seeds and versions of what made it, and where adapters and their runs are kept.
    """
    kept = {key: value for key, value in description.items() if key not in INCIDENTAL}
    kept["base"] = {key: value for key, value in kept["base"].items() if key not in ("id", "revision", "storage")}
    members = [
        {key: value for key, value in member.items() if key not in ("run_id", "folder")} for member in kept["members"]
    ]
    return digest_of({**kept, "members": members})


def register_ensemble(
    client: MlflowClient,
    name: str,
    run_id: str,
    folder: Path,
    *,
    adapters: Mapping[str, int],
    metrics: Mapping[str, float],
) -> Registered:
    """Register an ensemble folder as a version of ``name`` with the alias ``challenger``.

    Nothing is uploaded or registered when a version holds this ensemble already; that version is returned.

    Args:
        run_id: the pipeline's parent run, which the model is logged under.
        adapters: member, booster or ``start`` -> version in ``<name>-adapters``.
        metrics: what to keep with the version, for a look without opening the run.
    """
    description = json.loads((folder / "ensemble.json").read_text())
    digest = ensemble_digest(description)
    found = first_version(client, name, "ensemble_digest", digest)
    if found is None:
        tags = {
            **version_tags(description, adapters, metrics),
            "ensemble_digest": digest,
            ANSWERS: answers_digest(description),
        }
        model_id, source = log_model(client, name, run_id, folder, description)
        found = only_one(client, create_version(client, name, source, run_id, tags, model_id), "ensemble_digest")
    move_alias(client, name, CHALLENGER, str(found.version))
    return _registered(found, changed=found.run_id == run_id)


def version_tags(
    description: Mapping[str, Any], adapters: Mapping[str, int], metrics: Mapping[str, float]
) -> dict[str, str]:
    """What a version says of itself: enough to walk back without opening its files (see ``lineage``)."""
    tags = {"loraloom_version": __version__, "git_sha": description["git_sha"], "seed": str(description["seed"])}
    tags |= {f"base.{key}": str(value) for key, value in description["base"].items() if key != "storage"}
    tags["start.digest"] = description["start"]["digest"]
    for name, dataset in description["datasets"].items():
        tags[f"dataset.{name}.digest"] = dataset["digest"]
    for kind, artifact in description["artifacts"].items():
        tags |= {f"{kind}.key": artifact["key"], f"{kind}.digest": artifact["digest"]}
    for member in description["members"]:
        prefix = f"adapter.{member['name']}"
        tags |= {
            f"{prefix}.digest": member["digest"],
            f"{prefix}.run_id": member["run_id"],
            f"{prefix}.datasets": canonical(member["datasets"]),
            f"{prefix}.boosters": canonical([booster["digest"] for booster in member["boosters"]]),
        }
    tags |= {f"adapter.{name}.version": str(number) for name, number in adapters.items()}
    for name, merged in description["merged"].items():
        told = {"default": merged["default"], "test": merged.get("test")}
        tags[MERGED + name] = canonical({**merged["disagreement"], **told})
    if description["router"]:
        tags["router.accuracy"] = f"{description['router']['accuracy']:.4f}"
    tags |= {f"adapter.{name}.digest": digest for name, digest in _others(description).items() if name in adapters}
    return tags | {f"metric.{name}": repr(float(value)) for name, value in metrics.items()}


def served_merged(tags: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What a version's tags say of the datasets that merged adapters answer by default: test rows, accuracies..."""
    merged = {key.removeprefix(MERGED): json.loads(value) for key, value in tags.items() if key.startswith(MERGED)}
    return {name: told["test"] for name, told in merged.items() if told.get("test")}


def _others(description: Mapping[str, Any]) -> dict[str, str]:
    """Digests of what an ensemble ships besides its members: theta* and the boosters, by folder name."""
    boosters = [booster for member in description["members"] for booster in member["boosters"]]
    return {Path(shipped["folder"]).name: shipped["digest"] for shipped in (description["start"], *boosters)}


def is_judged(client: MlflowClient, name: str, number: str, settings: RegistryConfig) -> bool:
    """Whether nothing is left to decide: the version is the champion, or was judged against the present champion under
    these settings, or a person took it back.
    """
    serving = champion(client, name)
    if serving is not None and serving.version == number:
        return True
    tags = client.get_model_version(name, number).tags
    return ROLLED_BACK in tags or (
        tags.get("gate.against") == (serving.version if serving else "nobody")
        and tags.get("gate.settings") == canonical(settings.model_dump())
    )


def promote(client: MlflowClient, name: str, number: str, verdict: Verdict, settings: RegistryConfig) -> None:
    """Write the verdict to the version, and give it the alias ``champion`` if it was promoted.

    The version also remembers against whom and under which settings it was judged (``gate.against``,
    ``gate.settings``). That is written last: a promotion stopped half-way counts as none and is done again.
    """
    serving = champion(client, name)
    tags = {
        "gate.decision": verdict.decision,
        "gate.reason": verdict.reason,
        "gate.numbers": canonical(verdict.numbers),
    }
    done = {
        "gate.against": serving.version if serving else "nobody",
        "gate.settings": canonical(settings.model_dump()),
    }
    _tag(client, name, number, tags)
    if verdict.decision == "promoted":
        move(client, name, number, "promoted", by="gate", reason=verdict.reason)
    _tag(client, name, number, done)


def _tag(client: MlflowClient, name: str, number: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        tag_version(client, name, number, key, value)


def champion(client: MlflowClient, name: str) -> Registered | None:
    """The version that serves, with its tags; None where there is none yet."""
    return with_alias(client, name, CHAMPION)


def with_alias(client: MlflowClient, name: str, alias: str) -> Registered | None:
    """The version of ``name`` with ``alias``, or None where model or alias do not exist."""
    found = holder(client, name, alias)
    return _registered(found, changed=False) if found is not None else None


def version_number(client: MlflowClient, name: str, version: str) -> str:
    """The number of a version given by number or by alias.

    Raises:
        UserError: there is no such version.
    """
    if version.isdigit():
        return str(numbered(client, name, version).version)
    found = with_alias(client, name, version)
    if found is None:
        raise UserError(
            f"no version of {name} is the {version}",
            remedy="run the pipeline first, or give a version's number; where it has run, `loraloom history` says why "
            "none was promoted",
        )
    return found.version


def fetch(client: MlflowClient, name: str, number: str, target: Path) -> Path:
    """Download a version's ensemble folder below ``target`` and return its path."""
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(name, number)
    target.mkdir(parents=True, exist_ok=True)
    uri = f"{source}/artifacts/ensemble"
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=client.tracking_uri))


def _registered(found: ModelVersion, *, changed: bool) -> Registered:
    return Registered(found.name, str(found.version), found.run_id or "", dict(found.tags), changed)
