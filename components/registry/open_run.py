"""The step `open_run`: MLflow's parent run, and what is known of the champion."""

import json
from typing import Any

from components import tracking
from components.garbage import sources_in
from components.registry.platform_run import platform_run
from components.registry.register import champion
from components.step import Step

RUN_NAME = "loraloom.run_name"


def run(config: str, run_name: str) -> str:
    """Open the parent run: under the platform's where there is one, else in the config's experiment.

    A second attempt goes on in the run that the first one opened.

    Returns:
        The run's context, a JSON object: ``run_id``, and ``champion`` with ``version``, ``start`` (digest of its
        theta*), ``groups`` (lists of dataset names) and ``predictions`` (store key), empty where there is none.
    """
    with Step("open_run", config, run_name) as step:
        tracked = step.config.tracking
        client = tracking.connect(str(tracked.uri))
        run_id = _parent(client, tracked.experiment or step.config.name, run_name)
        try:
            tracking.log_params(client, run_id, step.config.model_dump(mode="json"))
        except BaseException:
            tracking.close_run(client, run_id, failed=True)  # without this step's record nobody else would know of it
            raise
        experiment_id = client.get_run(run_id).info.experiment_id
        given = {"name": step.config.name, "sources": sources_in(config, step.config.model_dump_json())}
        step.facts = {"tracking_uri": tracked.uri, "experiment_id": experiment_id, "run_id": run_id, **given}
        return json.dumps({"run_id": run_id, "champion": _champion(client, step.config.name)})


def _parent(client: tracking.MlflowClient, experiment: str, run_name: str) -> str:
    above = platform_run(client)
    home = client.get_run(above).info if above else client.get_experiment_by_name(experiment)
    if home is not None:
        earlier = client.search_runs([home.experiment_id], f"tags.`{RUN_NAME}` = '{run_name}'", max_results=1)
        if earlier:
            client.update_run(earlier[0].info.run_id, status="RUNNING")
            return earlier[0].info.run_id
    return tracking.open_run(client, experiment, run_name, {RUN_NAME: run_name, "loraloom.kind": "run"}, under=above)


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
