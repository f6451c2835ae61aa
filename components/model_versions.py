"""Model versions in MLflow's registry, found again by the digest of what they hold.

Registering the same bytes twice, as a step that is tried again does, must not make two versions.
"""

from collections.abc import Mapping

from components.tracking import MlflowClient, MlflowException, ModelVersion

ATTEMPTS = 5


def register_adapter(
    client: MlflowClient, name: str, run_id: str, artifact_path: str, digest: str, tags: Mapping[str, str]
) -> int:
    """Make the PEFT folder that ``run_id`` logged under ``artifact_path`` a version of ``<name>-adapters``.

    Args:
        digest: of the adapter, 64 hex digits; a version that carries it already is returned as it is.
        tags: what else to keep with the version (group, datasets, step...).

    Returns:
        The version's number.
    """
    model = adapters_of(name)
    found = find_version(client, model, "digest", digest)
    if found is None:
        source = f"{client.get_run(run_id).info.artifact_uri}/{artifact_path}"
        found = create_version(client, model, source, run_id, {**tags, "digest": digest})
    return int(found.version)


def adapters_of(name: str) -> str:
    """The registered model that holds the adapters of the ensemble ``name``."""
    return f"{name}-adapters"


def find_version(client: MlflowClient, model: str, tag: str, value: str) -> ModelVersion | None:
    """The newest version of ``model`` whose ``tag`` is ``value``, or None."""
    found = client.search_model_versions(f"name = '{model}' and tags.`{tag}` = '{value}'", max_results=1000)
    return max(found, key=lambda version: int(version.version), default=None)


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
