"""The runs behind registered ensembles, against a real embedded store."""

import pytest

from components import model_versions, tracking
from components.registry import kept_runs
from components.registry.kept_runs import runs_of_versions


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tracking.MlflowClient:
    return tracking.connect(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


def version(client: tracking.MlflowClient, ensemble: str, run_name: str, tag: str = "ensemble_digest") -> str:
    """A run, and a version it registers; the run's id."""
    run_id = tracking.open_run(client, "experiment", run_name, {"loraloom.run_name": run_name})
    model_versions.create_version(client, ensemble, "file:///x", run_id, {tag: "d"})
    return run_id


def test_every_version_of_every_ensemble_names_its_run(
    client: tracking.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_runs, "PAGE", 2)
    assert runs_of_versions(client) == {}
    for number in (1, 2, 3):
        version(client, "desk", f"desk-{number}")
    version(client, "desk-adapters", "adapter", tag="digest")  # an adapter, not an ensemble
    other = version(client, "other", "other-1")
    client.delete_run(other)  # as from MLflow's pages: it can be restored
    assert runs_of_versions(client) == {
        "desk-1": "desk version 1",
        "desk-2": "desk version 2",
        "desk-3": "desk version 3",
        "other-1": "other version 1",
    }


def test_a_run_that_mlflow_has_forgotten_is_named_by_its_id(client: tracking.MlflowClient) -> None:
    model_versions.create_version(client, "forgotten", "file:///x", "f" * 32, {"ensemble_digest": "d"})
    assert runs_of_versions(client)["f" * 32] == "forgotten version 1"
