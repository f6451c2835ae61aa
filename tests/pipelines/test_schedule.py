"""The config's recurring run on Kubeflow Pipelines: what is sent, and that there is never more than one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.cluster_config import ScheduleConfig
from components.config import RunConfig
from components.config_transport import unpack
from components.errors import UserError
from pipelines.cli import app
from pipelines.invocation import typed
from pipelines.kfp_api import Unanswered, connect
from pipelines.schedule import recurring_runs, schedule
from tests.pipelines.kfp_stub import KfpStub, kfp_stub
from tests.pipelines.test_cluster import bucket
from tests.pipelines.test_submit import config_of, settings


@pytest.fixture(scope="module")
def server() -> Iterator[KfpStub]:
    with kfp_stub() as stub:
        yield stub


@pytest.fixture
def stub(server: KfpStub, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> KfpStub:
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server.storage = bucket(endpoint, "schedules", monkeypatch)
    server.experiments.clear()
    server.recurringruns.clear()
    server.requests.clear()
    return server


def scheduled(config: RunConfig) -> tuple[Any, bool]:
    return schedule(connect(config.cluster), config)


def at(config: RunConfig, cron: str) -> RunConfig:
    return config.model_copy(update={"schedule": ScheduleConfig(cron=cron)})


def test_runs_never_overlap_and_none_is_made_up_for(stub: KfpStub, tmp_path: Path) -> None:
    entry, new = scheduled(config_of(stub, tmp_path, service_account="loraloom-pipeline"))
    (request,) = stub.sent("POST", "recurringruns")
    assert new and entry.recurring_run_id == stub.recurringruns[0]["recurring_run_id"]
    assert request.body == {
        "display_name": "desk_2",
        "experiment_id": stub.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": stub.pipelines[0]["pipeline_id"],
            "pipeline_version_id": stub.versions[-1]["pipeline_version_id"],
        },
        "runtime_config": {"parameters": {}},
        "trigger": {"cron_schedule": {"cron": "0 0 3 * * SUN"}},  # five fields in the config
        "max_concurrency": 1,
        "no_catchup": True,
        "mode": "ENABLE",
        "service_account": "loraloom-pipeline",
    }


def test_scheduled_runs_train_nothing_only_to_compare_with_and_each_has_its_own_name(
    stub: KfpStub, tmp_path: Path
) -> None:
    config = config_of(stub, tmp_path)
    both = config.ensemble.model_copy(update={"baselines": ["multitask", "per_dataset"]})
    scheduled(config.model_copy(update={"ensemble": both}))
    spec = next(yaml.safe_load_all(stub.versions[-1]["text"]))
    told = unpack(spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"])
    assert told.ensemble.baselines == ["multitask"]  # a member of the ensemble
    named = spec["root"]["dag"]["tasks"]["exit-handler-1"]["inputs"]["parameters"]["pipelinechannel--run_name"]
    assert named == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}  # KFP puts each run's id there


def test_the_same_again_changes_nothing_and_another_time_replaces_it(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    first, _ = scheduled(config)
    assert scheduled(config)[1] is False
    assert len(stub.sent("POST", "recurringruns")) == 1
    second, new = scheduled(at(config, "30 0 4 * * MON"))
    assert new
    assert [entry["recurring_run_id"] for entry in stub.recurringruns] == [second.recurring_run_id]
    assert stub.recurringruns[0]["trigger"] == {"cron_schedule": {"cron": "30 0 4 * * MON"}}
    asked = [(request.method, request.path) for request in stub.requests]
    deleted = asked.index(("DELETE", f"recurringruns/{first.recurring_run_id}"))
    assert deleted > [i for i, request in enumerate(asked) if request == ("POST", "recurringruns")][-1]


def test_the_old_one_stays_where_the_new_one_fails(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    first, _ = scheduled(config)
    stub.fail("POST", "recurringruns", 500)
    with pytest.raises(UserError, match=r"did not create the schedule \(500\)"):
        scheduled(at(config, "0 4 * * *"))
    assert [entry["recurring_run_id"] for entry in stub.recurringruns] == [first.recurring_run_id]


def test_a_lost_answer_does_not_make_two(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    stub.fail("POST", "recurringruns", "lost")
    scheduled(config)
    assert len(stub.recurringruns) == 1
    stub.fail("POST", "recurringruns", "drop")
    with pytest.raises(Unanswered, match="did not create the schedule"):
        scheduled(at(config, "0 4 * * *"))
    assert len(stub.recurringruns) == 1


def test_times_that_never_come_are_not_sent(stub: KfpStub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hour '25' is not within 0-23"):
        scheduled(at(config_of(stub, tmp_path), "0 25 * * *"))
    without = config_of(stub, tmp_path).model_copy(update={"schedule": None})
    with pytest.raises(UserError, match="the config has no schedule"):
        scheduled(without)
    assert {request.path for request in stub.requests} == {"healthz"}


def test_another_configs_schedule_is_left_alone(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    scheduled(config.model_copy(update={"name": "other"}))
    scheduled(config)
    assert sorted(entry["display_name"] for entry in stub.recurringruns) == ["desk_2", "other"]
    (ours,) = recurring_runs(connect(config.cluster), config)
    assert ours.display_name == "desk_2"


def test_in_a_namespace_a_schedule_is_found_again(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path, namespace="team")
    scheduled(config)
    assert scheduled(config)[1] is False
    (home,) = [experiment for experiment in stub.experiments if experiment.get("namespace") == "team"]
    assert [entry["experiment_id"] for entry in stub.recurringruns] == [home["experiment_id"]]


def test_the_commands(stub: KfpStub, tmp_path: Path) -> None:
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(settings(stub, tmp_path)))

    def told(*words: str) -> str:
        shown = CliRunner().invoke(app, ["schedule", *words, "-c", str(config_file)], catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        return shown.stdout

    created = told()
    assert "note: mood: on this machine" in created
    assert f"scheduled desk_2 at '0 0 3 * * SUN' ({stub.recurringruns[0]['recurring_run_id']})" in created
    assert "unchanged: desk_2" in told()
    assert "0 0 3 * * SUN" in told("list") and "on" in told("list").split()
    told("pause")
    assert stub.recurringruns[0]["status"] == "DISABLED" and "paused" in told("list")
    told("resume")
    assert stub.recurringruns[0]["status"] == "ENABLED"
    told("delete")
    assert stub.recurringruns == []
    for words in (["list"], ["pause"], ["resume"], ["delete"]):
        shown = CliRunner().invoke(app, ["schedule", *words, "-c", str(config_file)])
        assert shown.exit_code == 2
        hint = f"-> {typed('schedule', '-c', config_file)}"
        assert shown.stderr.splitlines() == ["error: desk_2 has no schedule", hint]


def test_who_only_asks_makes_no_experiment(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    assert recurring_runs(connect(config.cluster), config) == []
    assert stub.experiments == []


def test_a_config_named_too_early_is_not_silently_another_one() -> None:
    shown = CliRunner().invoke(app, ["schedule", "-c", "mine.yaml", "delete"])
    assert shown.exit_code == 2
    assert f"-> {typed('schedule', 'delete', '-c', 'mine.yaml')}" in shown.stderr
