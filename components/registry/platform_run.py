"""The MLflow run that the platform opened for this pipeline run, if it did.

Kubeflow Pipelines can keep an MLflow run for each pipeline run and one for each task below it (KEP-12862,
https://github.com/kubeflow/pipelines/tree/master/proposals/12862-mlflow-integration). It names the *task's* in
``MLFLOW_RUN_ID``: what all steps have in common is the topmost run above it. The variable may just as well be left over
from something else, or belong to another MLflow server, so it counts only where this store knows the run.
"""

import os

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from components import tracking

VARIABLE = "MLFLOW_RUN_ID"


def platform_run(client: tracking.MlflowClient) -> str | None:
    """The id of the topmost run above the one in ``MLFLOW_RUN_ID``; None where this store has no such run."""
    above: list[str] = []
    run_id = os.environ.get(VARIABLE)
    while run_id and run_id not in above and (run := _active(client, run_id)):
        above.append(run_id)
        run_id = run.data.tags.get(tracking.PARENT)
    return above[-1] if above else None


def _active(client: tracking.MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None
