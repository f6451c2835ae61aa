"""What is handed to a cluster: the laptop's graph, with the config's images and resources in it."""

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kfp import compiler
from kfp.components import load_component_from_file
from typer.testing import CliRunner

from components.config import RunConfig
from components.config_transport import unpack
from components.errors import UserError
from pipelines.catalogue import PIPELINES, graph_of
from pipelines.cli import app
from pipelines.cluster import compile_pipeline
from pipelines.ensemble import ensemble_pipeline
from pipelines.invocation import typed

SETTINGS: dict[str, Any] = {
    "name": "desk",
    "model": {"id": "x"},
    "datasets": [{"name": "a", "path": "s3://data/a"}],
    "storage": {"uri": "s3://bucket/prefix"},
    "tracking": {"uri": "http://mlflow:5000"},
    "images": {"registry": "registry.example.org/team", "tag": "abc123"},
    "resources": {
        "train": {"gpus": 2, "memory": "24Gi", "cpu": "4", "retries": 3, "backoff": 30, "shm": "8Gi"},
        "warm_start": {"gpus": 1, "gpu_type": "nvidia.com/mig-3g.40gb"},
        "estimate": {"cpu": "500m", "retries": 1},
    },
}
GPU_STEPS = {"warm-start", "extract", "train", "boost", "servable"}
MLFLOWS = "MLFLOW_TRACKING_SERVER_CERT_PATH"
STEPS = GPU_STEPS | set(
    "open-run prepare changes estimate partition weigh evaluate register promote close-run".split()
)  # as KFP writes them


def compiled(tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    """The two documents."""
    compile_pipeline(RunConfig.model_validate(SETTINGS | more), tmp_path / "pipeline.yaml")
    return list(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))


def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"pipeline\.yaml cannot be written: Not a directory"):
        compile_pipeline(RunConfig.model_validate(SETTINGS), tmp_path / "file" / "pipeline.yaml")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nofolder/pipeline\.yaml cannot be written") as caught:
        compile_pipeline(RunConfig.model_validate(SETTINGS), tmp_path / "nofolder" / "pipeline.yaml")
    assert caught.value.remedy == f"there is no folder {tmp_path}/nofolder: make it first, or give another place"


def test_the_hint_submits_the_pipeline_that_was_compiled(tmp_path: Path) -> None:
    config_file, output = tmp_path / "config.yaml", tmp_path / "pipeline.yaml"
    config_file.write_text(yaml.safe_dump(SETTINGS))
    for until, more in (("promote", []), ("partition", ["--until", "partition"])):
        words = ["compile", "-c", str(config_file), "-o", str(output), "--until", until]
        shown = CliRunner().invoke(app, words, catch_exceptions=False)
        submit = typed("submit", "-c", config_file, *more)
        assert shown.stdout.splitlines() == [
            f"wrote {output}",
            f"-> upload it to Kubeflow Pipelines, or let {submit} do it",
        ]


def test_what_a_pipeline_lacks_is_told_before_it_is_compiled(tmp_path: Path) -> None:
    two = [{"name": name, "path": f"s3://data/{name}"} for name in ("a", "b")]
    config_file, output = tmp_path / "config.yaml", tmp_path / "pipeline.yaml"
    config_file.write_text(yaml.safe_dump(SETTINGS | {"datasets": two}))
    shown = CliRunner().invoke(app, ["compile", "-c", str(config_file), "-o", str(output), "--until", "select"])
    assert (shown.exit_code, output.exists()) == (2, False)
    assert shown.stderr.splitlines()[-1] == "-> set selection.target in the config: one of a, b"


def plain(tmp_path: Path) -> dict[str, Any]:
    """The graph as kfp compiles it."""
    compiler.Compiler().compile(ensemble_pipeline, str(tmp_path / "plain.yaml"))
    return yaml.safe_load((tmp_path / "plain.yaml").read_text())


def bucket(endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a store in a bucket of this name, which is made."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=name)
    return {"uri": f"s3://{name}/prefix", "endpoint_url": endpoint}


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def pods(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): pod for name, pod in executors.items()}


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of every level."""
    levels = [spec["root"], *(part for part in spec["components"].values() if "dag" in part)]
    return {name: task for level in levels for name, task in level["dag"]["tasks"].items()}


def test_every_step_has_its_image(tmp_path: Path) -> None:
    found = {name: container["image"] for name, container in containers(compiled(tmp_path)[0]).items()}
    team = "registry.example.org/team/loraloom"
    assert found == {step: f"{team}/worker:abc123" if step in GPU_STEPS else f"{team}/cpu:abc123" for step in STEPS}


def test_every_step_has_what_it_asked_for_and_nothing_else(tmp_path: Path) -> None:
    steps = containers(compiled(tmp_path)[0])
    assert {name: container["resources"] for name, container in steps.items() if "resources" in container} == {
        "train": {
            "resourceCpuRequest": "4",
            "resourceCpuLimit": "4",
            "resourceMemoryRequest": "24Gi",
            "resourceMemoryLimit": "24Gi",
            "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "2"},
        },
        "warm-start": {"accelerator": {"resourceType": "nvidia.com/mig-3g.40gb", "resourceCount": "1"}},
        "estimate": {"resourceCpuRequest": "500m", "resourceCpuLimit": "500m"},
    }


def test_retries_stand_at_the_tasks_that_run_a_container(tmp_path: Path) -> None:
    found = {name: task["retryPolicy"] for name, task in tasks(compiled(tmp_path)[0]).items() if "retryPolicy" in task}
    pause = {"backoffFactor": 2.0, "backoffMaxDuration": "3600s"}
    assert found == {
        "train": {"maxRetryCount": 3, "backoffDuration": "30s", **pause},
        "estimate": {"maxRetryCount": 1, "backoffDuration": "60s", **pause},
    }


def test_apart_from_that_it_is_the_one_graph(tmp_path: Path) -> None:
    ours, kfps = compiled(tmp_path)[0], plain(tmp_path)
    for task in tasks(ours).values():
        task.pop("retryPolicy", None)
    assert ours["components"] == kfps["components"]
    for spec in (ours, kfps):
        for task in spec["root"]["dag"]["tasks"].values():
            for name in ("run_name", "pipelinechannel--run_name"):
                task["inputs"]["parameters"].pop(name, None)
    assert ours["root"]["dag"] == kfps["root"]["dag"]
    for name, container in containers(kfps).items():
        assert containers(ours)[name]["command"] == container["command"]
        assert containers(ours)[name]["args"] == container["args"]


def test_the_config_is_the_only_parameter_and_has_a_default(tmp_path: Path) -> None:
    parameters = compiled(tmp_path)[0]["root"]["inputDefinitions"]["parameters"]
    assert list(parameters) == ["config"]
    assert parameters["config"]["isOptional"] is True
    assert unpack(parameters["config"]["defaultValue"]) == RunConfig.model_validate(SETTINGS)


def test_a_run_is_named_after_kfps_id(tmp_path: Path) -> None:
    spec = compiled(tmp_path)[0]
    root = spec["root"]["dag"]["tasks"]
    # The driver only replaces a constant that is the placeholder and nothing else.
    placeholder = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert root["close-run"]["inputs"]["parameters"]["run_name"] == placeholder
    assert root["exit-handler-1"]["inputs"]["parameters"]["pipelinechannel--run_name"] == placeholder
    [branch] = [part for name, part in spec["components"].items() if name.startswith("comp-condition-")]
    for level in (spec["components"]["comp-exit-handler-1"], branch):
        for task in level["dag"]["tasks"].values():
            given = task["inputs"]["parameters"]
            handed_on = given.get("run_name") or given["pipelinechannel--run_name"]
            assert handed_on == {"componentInputParameter": "pipelinechannel--run_name"}


def test_a_large_config_travels_by_reference(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "a", "path": "s3://data/a", "labels": [f"label number {i}" for i in range(3000)]}
    settings = {"datasets": [entry], "storage": bucket(endpoint, "large", monkeypatch)}
    default = compiled(tmp_path, **settings)[0]["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    assert len(default) < 1000
    assert unpack(default) == RunConfig.model_validate(SETTINGS | settings)


def test_kfp_reads_it_back(tmp_path: Path) -> None:
    compiled(tmp_path)
    component = load_component_from_file(str(tmp_path / "pipeline.yaml"))
    assert component.name == "loraloom"
    assert set(component.platform_spec.platforms["kubernetes"].deployment_spec.executors) == {
        f"exec-{step}" for step in STEPS
    }
    head = [line for line in (tmp_path / "pipeline.yaml").read_text().splitlines() if line.startswith("#")]
    assert [line.split(":")[0] for line in head] == ["# PIPELINE DEFINITION", "# Name", "# Description"]


def test_the_service_account_is_named_for_whoever_creates_the_run(tmp_path: Path) -> None:
    compiled(tmp_path, cluster={"service_account": "loraloom-pipeline"})
    assert "\n# Service account: loraloom-pipeline " in (tmp_path / "pipeline.yaml").read_text()


@pytest.mark.parametrize(
    "here",
    [{"storage": {}, "tracking": {}}, {"storage": {"uri": "/data"}, "tracking": {"uri": "sqlite:////data/m.db"}}],
)
def test_what_cannot_run_on_a_cluster_is_told_at_once(tmp_path: Path, here: dict[str, Any]) -> None:
    wrong = {**here, "resources": {"prepare": {"gpus": 1}, "weigh": {"gpus": 1}}}
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, **wrong)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "storage.uri",
        "tracking.uri",
        "resources.prepare.gpus",
        "resources.weigh.gpus",
    ]
    assert "only warm_start, extract, train, boost, servable, score have" in caught.value.problems[2]
    assert not (tmp_path / "pipeline.yaml").exists()


def test_a_gpu_that_the_model_would_not_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, model={"id": "x", "device": "cpu"})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "resources.train.gpus",
        "resources.warm_start.gpus",
    ]


def test_no_gpu_is_asked_for_unless_the_config_does(tmp_path: Path) -> None:
    assert "accelerator" not in str(compiled(tmp_path, resources={})[0]["deploymentSpec"])


def test_the_documented_config_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    spec, platform = compiled(tmp_path, **yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]))
    assert containers(spec)["train"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert {pod["secretAsEnv"][0]["secretName"] for pod in pods(platform).values()} == {"loraloom-s3"}


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    config, output = tmp_path / "config.yaml", tmp_path / "out.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    shown = CliRunner().invoke(app, ["compile", "-c", str(config), "-o", str(output)], catch_exceptions=False)
    assert (shown.exit_code, shown.output.splitlines()[0]) == (0, f"wrote {output}")
    assert next(yaml.safe_load_all(output.read_text()))["pipelineInfo"]["name"] == "loraloom"


def test_the_command_refuses_a_bad_config_with_all_its_problems(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"seed": -1, "storage": {"uri": "ftp://x"}, "nme": "desk"}))
    shown = CliRunner().invoke(app, ["compile", "-c", str(config), "-o", str(tmp_path / "out.yaml")])
    assert shown.exit_code == 2
    assert shown.stderr.startswith(f"error: 3 problems in {config}\n")
    for setting in ("seed", "storage.uri", "nme"):
        assert f": {setting}: " in shown.stderr
    assert not (tmp_path / "out.yaml").exists()


def test_a_certificate_of_this_machine_does_not_travel_and_the_pods_one_is_named(tmp_path: Path) -> None:
    storage = SETTINGS["storage"] | {"ca_bundle": "/home/me/ca.pem"}
    more = {"storage": storage, "model": {"id": "s3://bucket/prefix/staged/0/1/model", "storage": storage}}
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, **more)
    (problem,) = caught.value.problems
    assert problem.startswith("storage.ca_bundle: pods have no /home/me/ca.pem") and "ca_config_map" in problem

    authority, trusted = {"ca_config_map": "authorities"}, "/etc/loraloom/certificates/ca.crt"
    for uri, expected in (("http://mlflow:5000", {"AWS_CA_BUNDLE"}), ("https://mlflow", {"AWS_CA_BUNDLE", MLFLOWS})):
        spec, platform = compiled(tmp_path, **more, cluster=authority, tracking={"uri": uri})
        assert "/home/me" not in (tmp_path / "pipeline.yaml").read_text()
        sent = unpack(spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"])
        assert sent.model.storage == sent.storage and sent.storage.ca_bundle is None
        for container in containers(spec).values():
            assert {each["name"] for each in container["env"] if each["value"] == trusted} == expected
        for pod in pods(platform).values():
            (volume,) = pod["configMapAsVolume"]
            assert (volume["configMapName"], volume["mountPath"]) == ("authorities", "/etc/loraloom/certificates")


def test_a_validation_has_its_pods_too(tmp_path: Path) -> None:
    compile_pipeline(RunConfig.model_validate(SETTINGS), tmp_path / "pipeline.yaml", graph_of(PIPELINES["judge"]))
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    assert spec["pipelineInfo"]["name"] == "loraloom-validation"
    found = containers(spec)
    assert found["fine-tune"]["image"].endswith("worker:abc123") and found["judge"]["image"].endswith("cpu:abc123")
    # It trains adapters, so it asks for what training asks for.
    assert found["fine-tune"]["resources"]["accelerator"] == {"resourceType": "nvidia.com/gpu", "resourceCount": "2"}
    assert tasks(spec)["fine-tune"]["retryPolicy"]["maxRetryCount"] == 3
    assert set(pods(platform)) == set(found)
