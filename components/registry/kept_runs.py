"""Which pipeline runs the registered ensembles come from."""

from mlflow.exceptions import MlflowException

from components.tracking import MlflowClient

PAGE = 1000


def runs_of_versions(client: MlflowClient) -> dict[str, str]:
    """Run name -> the ensemble version it made, for every version of every ensemble in the registry.

    Not only of one ensemble: several may share a store, and with it their features.
    """
    runs: dict[str, str] = {}
    token: str | None = None
    while True:
        page = client.search_model_versions(max_results=PAGE, page_token=token)
        for version in page:
            if "ensemble_digest" in version.tags:
                runs[_run_name(client, version.run_id or "")] = f"{version.name} version {version.version}"
        token = page.token
        if not token:
            return runs


def _run_name(client: MlflowClient, run_id: str) -> str:
    """The run's name in our store; its id, which no record carries, where MLflow has forgotten the run."""
    try:
        return client.get_run(run_id).data.tags.get("loraloom.run_name", run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return run_id
