"""Model versions in MLflow's registry, found again by the digest of what they hold.

Registering the same bytes twice, as a step that is tried again does, must not make two versions.
"""

from collections.abc import Mapping

from components.tracking import MlflowClient, MlflowException, ModelVersion, insist

ATTEMPTS = 5


def register_adapter(
    client: MlflowClient, name: str, run_id: str, artifact_path: str, digest: str, tags: Mapping[str, str]
) -> int:
    """Make the PEFT folder that ``run_id`` logged under ``artifact_path`` a version of ``<name>-adapters``.

    Args:
        digest: of the adapter, 64 hex digits; where a version carries it already, that one stays.
        tags: what else to keep with the version (group, datasets, step...).

    Returns:
        The number of the version that stays.
    """
    source = f"{client.get_run(run_id).info.artifact_uri}/{artifact_path}"
    made = create_version(client, adapters_of(name), source, run_id, {**tags, "digest": digest})
    return int(only_one(client, made, "digest").version)


def adapter_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The version of ``<name>-adapters`` that holds the adapter with this digest, or None."""
    return first_version(client, adapters_of(name), "digest", digest)


def adapters_of(name: str) -> str:
    """The registered model that holds the adapters of the ensemble ``name``."""
    return f"{name}-adapters"


def find_version(client: MlflowClient, model: str, tag: str, value: str) -> ModelVersion | None:
    """The newest version of ``model`` whose ``tag`` is ``value``, or None."""
    return max(_tagged(client, model, tag, value), key=_number, default=None)


def first_version(client: MlflowClient, model: str, tag: str, value: str) -> ModelVersion | None:
    """The oldest one: of versions of one thing that two runs made at once it is the one that stays."""
    return min(_tagged(client, model, tag, value), key=_number, default=None)


def _tagged(client: MlflowClient, model: str, tag: str, value: str) -> list[ModelVersion]:
    query = f"name = '{model}' and tags.`{tag}` = '{value}'"
    return list(client.search_model_versions(query, max_results=1000))


def _number(version: ModelVersion) -> int:
    return int(version.version)


def create_version(
    client: MlflowClient, model: str, source: str, run_id: str, tags: Mapping[str, str], model_id: str | None = None
) -> ModelVersion:
    """A new version of ``model``, which is created when it is the first.

    MLflow numbers versions by reading the highest and adding one. It tries three times, which a fan-out of pods
    that end together can exhaust, so we try again.
    """
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return client.create_model_version(model, source, run_id, tags=dict(tags), model_id=model_id)
        except MlflowException as error:
            if "Model Version creation error" not in str(error) or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def only_one(client: MlflowClient, made: ModelVersion, tag: str) -> ModelVersion:
    """The version that stays of those with the same ``tag``, where two runs have made one of the same thing at once.

    Each run looks after it has made its own, so all of them see the first one; who is not first takes its own back.
    """
    first = first_version(client, made.name, tag, made.tags[tag])
    if first is not None and _number(first) < _number(made):
        client.delete_model_version(made.name, str(made.version))
        return first
    return made


def tag_version(client: MlflowClient, model: str, number: str, key: str, value: str) -> None:
    """Set a version's tag, whoever else may be setting it."""
    insist(lambda: client.set_model_version_tag(model, number, key, value))


def move_alias(client: MlflowClient, model: str, alias: str, number: str) -> None:
    """Give ``alias`` to a version, whoever else may be giving it."""
    insist(lambda: client.set_registered_model_alias(model, alias, number))
