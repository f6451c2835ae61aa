"""Opening and closing MLflow's parent run: beside the platform's runs or below them, and whatever happens between."""

import json

import pytest

from components import tracking
from components.config import RunConfig
from components.object_store import LocalStore
from components.registry import close_run, open_run
from components.step import write_record
from tests.listener import listening

FACTS = {"changes": {"changed": False}}
NONSENSE = ("0" * 32, "no run at all", "a/b ' c")


class Project:
    """A config with an embedded store and MLflow, and the steps as the pipeline calls them."""

    def __init__(self, folder):
        self.uri, self.store = f"sqlite:///{folder}/mlflow.db", LocalStore(folder / "store")
        entry = {"name": "mood", "path": "mood.jsonl"}
        settings = {"name": "desk", "model": {"id": "x"}, "datasets": [entry], "tracking": {"uri": self.uri}}
        config = RunConfig.model_validate({**settings, "storage": {"uri": str(folder / "store")}})
        self.config = config.model_dump_json()

    @property
    def client(self):
        return tracking.connect(self.uri)

    def open(self, run_name="desk-1"):
        return json.loads(open_run.run(self.config, run_name))["run_id"]

    def close(self, *, done, run_name="desk-1"):
        for step in done:
            write_record(self.store, run_name, {"step": step, "part": "", "facts": FACTS.get(step, {})})
        close_run.run(self.config, run_name, "promote")

    def run(self, run_id):
        return self.client.get_run(run_id)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def nothing_injected(monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.fixture
def platform(project):
    """What Kubeflow Pipelines opens in an experiment of its own: a run for the pipeline, one for a group, a task's."""
    root = tracking.open_run(project.client, "KFP-Default", "pipeline")
    group = tracking.open_run(project.client, "", "exit-handler-1", under=root)
    return root, tracking.open_run(project.client, "", "open-run", under=group)


def test_without_a_platform_the_run_stands_by_itself(project):
    run = project.run(project.open("alone"))
    assert run.info.run_name == "alone" and tracking.PARENT not in run.data.tags
    assert run.info.experiment_id == project.client.get_experiment_by_name("desk").experiment_id
    assert run.data.params["model.id"] == "x"


@pytest.mark.parametrize("named", [0, 1])
def test_where_the_platform_has_a_run_ours_hangs_under_the_topmost(project, platform, monkeypatch, named):
    root, task = platform
    monkeypatch.setenv("MLFLOW_RUN_ID", platform[named])
    run = project.run(project.open(f"below-{named}"))
    assert run.data.tags[tracking.PARENT] == root
    assert run.info.experiment_id == project.run(root).info.experiment_id
    with tracking.child_run(project.client, run.info.run_id, "group-0") as child:
        tracking.log_metrics(project.client, child, {"loss": 0.5})
    assert project.run(child).data.tags[tracking.PARENT] == run.info.run_id
    assert [project.run(theirs).data.metrics for theirs in (root, task)] == [{}, {}]
    assert [project.run(theirs).data.params for theirs in (root, task)] == [{}, {}]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_run_id_that_this_store_does_not_know_changes_nothing(project, monkeypatch, nonsense):
    monkeypatch.setenv("MLFLOW_RUN_ID", nonsense)
    run = project.run(project.open(f"nonsense-{NONSENSE.index(nonsense)}"))
    assert tracking.PARENT not in run.data.tags
    assert run.info.experiment_id == project.client.get_experiment_by_name("desk").experiment_id


def test_a_deleted_run_is_no_ones_parent(project, platform, monkeypatch):
    root, _task = platform
    project.client.delete_run(root)
    monkeypatch.setenv("MLFLOW_RUN_ID", root)
    assert tracking.PARENT not in project.run(project.open("orphan")).data.tags


def test_runs_that_claim_each_other_end_the_walk(project, platform, monkeypatch):
    root, task = platform
    project.client.set_tag(root, tracking.PARENT, task)
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    assert project.run(project.open("circle")).data.tags[tracking.PARENT] == root


@pytest.mark.parametrize("below", [False, True])
def test_a_second_attempt_goes_on_in_the_first_ones_run(project, platform, monkeypatch, below):
    if below:
        monkeypatch.setenv("MLFLOW_RUN_ID", platform[1])
    name = f"again-{below}"
    first = project.open(name)
    tracking.close_run(project.client, first, failed=True)
    assert project.open(name) == first
    assert project.run(first).info.status == "RUNNING"
    assert project.open(f"{name}-other") != first


def test_a_run_that_cannot_be_described_is_ended(project, monkeypatch):
    def broken(*_):
        raise ConnectionError("gone")

    monkeypatch.setattr(tracking, "log_params", broken)
    with pytest.raises(ConnectionError):
        project.open("broken")
    (run,) = project.client.search_runs(
        [project.client.get_experiment_by_name("desk").experiment_id], "attributes.run_name = 'broken'"
    )
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(("done", "status"), [(["prepare", "promote"], "FINISHED"), (["prepare"], "FAILED")])
def test_the_last_steps_record_says_how_it_ended(project, done, status):
    name = f"ends-{status}"
    run_id = project.open(name)
    lost = tracking.open_run(project.client, "", "lost", under=run_id)  # its pod was killed
    project.close(done=done, run_name=name)
    assert (project.run(run_id).info.status, project.run(lost).info.status) == (status, "FAILED")


def test_closing_leaves_the_platforms_runs_to_the_platform(project, platform, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", platform[1])
    run_id = project.open("leave")
    project.close(done=["promote"], run_name="leave")
    assert project.run(run_id).info.status == "FINISHED"
    assert [project.run(theirs).info.status for theirs in platform] == ["RUNNING", "RUNNING"]


def test_where_nothing_was_opened_there_is_nothing_to_close(project):
    project.close(done=[], run_name="never")
    record = json.loads(project.store.read("runs/never/steps/close_run.json"))
    assert record["facts"] == {"failed": True}


def test_a_run_with_nothing_to_do_ended_well(project):
    run_id = project.open("desk-same")
    project.close(done=["prepare", "changes"], run_name="desk-same")
    assert project.run(run_id).info.status == "FINISHED"


def test_a_failed_run_is_told_to_the_webhook_unless_somebody_follows_it(project, monkeypatch, tmp_path):
    with listening() as listener:
        monkeypatch.setenv("LORALOOM_WEBHOOK", listener.url)
        project.open("desk-bad")
        project.close(done=["prepare"], run_name="desk-bad")
        project.open("desk-good")
        project.close(done=["promote"], run_name="desk-good")
        monkeypatch.setenv("LORALOOM_EVENTS", str(tmp_path / "events.jsonl"))
        project.open("desk-followed")
        project.close(done=["prepare"], run_name="desk-followed")
    (told,) = listener.received
    assert (told["event"], told["run_name"]) == ("run_failed", "desk-bad")
    assert told["text"] == "run desk-bad of desk failed: it got no further than open_run, prepare"
