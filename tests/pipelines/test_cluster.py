"""What is handed to a cluster: the laptop's graph, with the config's images and resources in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler
from kfp.components import load_component_from_file
from typer.testing import CliRunner

from components.config import ImagesConfig, RunConfig
from components.config_transport import unpack
from components.errors import UserError
from components.image import IMAGE
from pipelines.cli import app
from pipelines.cluster import compile_pipeline, image
from pipelines.ensemble import ensemble_pipeline

SETTINGS: dict[str, Any] = {
    "name": "desk",
    "model": {"id": "x"},
    "datasets": [{"name": "a", "path": "s3://data/a"}],
    "storage": {"uri": "s3://bucket/prefix"},
    "tracking": {"uri": "http://mlflow:5000"},
    "images": {"registry": "registry.example.org/team", "tag": "abc123"},
    "resources": {
        "train": {"gpus": 2, "memory": "24Gi", "cpu": "4"},
        "warm_start": {"gpus": 1},
        "estimate": {"cpu": "500m"},
    },
}


def compiled(tmp_path: Path, **more: Any) -> dict[str, Any]:
    compile_pipeline(RunConfig.model_validate(SETTINGS | more), tmp_path / "pipeline.yaml")
    return yaml.safe_load((tmp_path / "pipeline.yaml").read_text())


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def test_every_step_has_the_image_and_what_it_asked_for(tmp_path: Path) -> None:
    steps = containers(compiled(tmp_path))
    assert len(steps) == 12
    assert {container["image"] for container in steps.values()} == {"registry.example.org/team/loraloom/worker:abc123"}
    assert {name: container["resources"] for name, container in steps.items() if "resources" in container} == {
        "train": {
            "resourceCpuLimit": "4",
            "resourceMemoryLimit": "24Gi",
            "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "2"},
        },
        "warm-start": {"accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "1"}},
        "estimate": {"resourceCpuLimit": "500m"},
    }


@pytest.mark.parametrize(
    ("registry", "tag", "name"),
    [
        (None, None, IMAGE),
        (None, "1", "loraloom/worker:1"),
        ("localhost:5000", None, f"localhost:5000/{IMAGE}"),
        ("localhost:5000", "1", "localhost:5000/loraloom/worker:1"),
    ],
)
def test_image_names(registry: str | None, tag: str | None, name: str) -> None:
    assert image(ImagesConfig(registry=registry, tag=tag)) == name


def test_apart_from_that_it_is_the_one_graph(tmp_path: Path) -> None:
    ours = compiled(tmp_path)
    compiler.Compiler().compile(ensemble_pipeline, str(tmp_path / "plain.yaml"))
    plain = yaml.safe_load((tmp_path / "plain.yaml").read_text())
    assert ours["components"] == plain["components"]
    for spec in (ours, plain):
        for task in spec["root"]["dag"]["tasks"].values():
            del task["inputs"]["parameters"]["run_name"]
    assert ours["root"]["dag"] == plain["root"]["dag"]
    for name, container in containers(plain).items():
        assert containers(ours)[name]["command"] == container["command"]


def test_the_config_is_the_only_parameter_and_has_a_default(tmp_path: Path) -> None:
    parameters = compiled(tmp_path)["root"]["inputDefinitions"]["parameters"]
    assert list(parameters) == ["config"]
    assert parameters["config"]["isOptional"] is True
    assert unpack(parameters["config"]["defaultValue"]) == RunConfig.model_validate(SETTINGS)


def test_a_run_is_named_after_kfps_id(tmp_path: Path) -> None:
    tasks = compiled(tmp_path)["root"]["dag"]["tasks"]
    named = {json.dumps(task["inputs"]["parameters"]["run_name"]) for task in tasks.values()}
    # The driver only replaces a constant that is the placeholder and nothing else.
    assert named == {'{"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}'}


def test_a_large_config_travels_by_reference(tmp_path: Path) -> None:
    entry = {"name": "a", "path": "s3://data/a", "labels": [f"label number {i}" for i in range(3000)]}
    settings = {"datasets": [entry], "storage": {"uri": str(tmp_path / "store")}}
    default = compiled(tmp_path, **settings)["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    assert len(default) < 1000
    assert unpack(default) == RunConfig.model_validate(SETTINGS | settings)


def test_kfp_reads_it_back(tmp_path: Path) -> None:
    compiled(tmp_path)
    assert load_component_from_file(str(tmp_path / "pipeline.yaml")).name == "loraloom"
    head = (tmp_path / "pipeline.yaml").read_text().splitlines()[:3]
    assert [line.split(":")[0] for line in head] == ["# PIPELINE DEFINITION", "# Name", "# Description"]


def test_what_cannot_run_on_a_cluster_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"storage": {}, "tracking": {}, "resources": {"prepare": {"gpus": 1}, "weigh": {"gpus": 1}}}
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, **wrong)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "storage.uri",
        "tracking.uri",
        "resources.prepare.gpus",
        "resources.weigh.gpus",
    ]
    assert not (tmp_path / "pipeline.yaml").exists()


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    config, output = tmp_path / "config.yaml", tmp_path / "out.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    shown = CliRunner().invoke(app, ["compile", "-c", str(config), "-o", str(output)], catch_exceptions=False)
    assert (shown.exit_code, shown.output.splitlines()[0]) == (0, f"wrote {output}")
    assert yaml.safe_load(output.read_text())["pipelineInfo"]["name"] == "loraloom"


def test_the_command_refuses_a_bad_config_with_all_its_problems(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"seed": -1, "storage": {"uri": "ftp://x"}, "nme": "desk"}))
    shown = CliRunner().invoke(app, ["compile", "-c", str(config), "-o", str(tmp_path / "out.yaml")])
    assert shown.exit_code == 2
    assert shown.stderr.startswith(f"error: 3 problems in {config}\n")
    for setting in ("seed", "storage.uri", "nme"):
        assert f": {setting}: " in shown.stderr
    assert not (tmp_path / "out.yaml").exists()
