"""The step `open_run`: MLflow's parent run, and what is known of the champion."""

import json
from typing import Any

from components import tracking
from components.registry.register import champion
from components.step import Step


def run(config: str, run_name: str) -> str:
    """Open the parent run.

    Returns:
        The run's context, a JSON object: ``run_id``, and ``champion`` with ``version``, ``start`` (digest of its
        theta*), ``groups`` (lists of dataset names) and ``predictions`` (store key), empty where there is none.
    """
    with Step("open_run", config, run_name) as step:
        tracked = step.config.tracking
        client = tracking.connect(str(tracked.uri))
        tags = {"loraloom.run_name": run_name, "loraloom.kind": "run"}
        run_id = tracking.open_run(client, tracked.experiment or step.config.name, run_name, tags)
        tracking.log_params(client, run_id, step.config.model_dump(mode="json"))
        experiment_id = client.get_run(run_id).info.experiment_id
        step.facts = {"tracking_uri": tracked.uri, "experiment_id": experiment_id, "run_id": run_id}
        return json.dumps({"run_id": run_id, "champion": _champion(client, step.config.name)})


def _champion(client: tracking.MlflowClient, name: str) -> dict[str, Any]:
    found = champion(client, name)
    if found is None:
        return {}
    tags = found.tags
    groups = sorted(key for key in tags if key.startswith("adapter.group-") and key.endswith(".datasets"))
    return {
        "version": found.version,
        "start": tags["start.digest"],
        "groups": [json.loads(tags[key]) for key in groups],
        "predictions": tags["predictions.key"],
    }
