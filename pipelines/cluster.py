"""The pipeline for a cluster: the graph that runs on a laptop too, as IR YAML with the config's images and resources.

The graph is compiled once and knows of no config. What a config adds is written into the compiled text: the containers
and pods of the steps (``pods.py``), their retries, and the value of the parameter ``config``. So there is one way to
build a pipeline, not two; and resources are constants, which KFP reads everywhere, while the reference to a pipeline
parameter that it compiles inside a loop leads nowhere.
"""

import copy
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import ParseDict
from kfp import compiler, dsl
from kfp.dsl.graph_component import GraphComponent as Graph
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.cluster_config import StepResources
from components.config import RunConfig
from components.config_transport import pack
from components.errors import UserError, writable
from pipelines.ensemble import ensemble_pipeline
from pipelines.pods import equip, pod, retry_policy

ALIKE = {"fine_tune": "train", "linearity": "extract"}  # steps that ask of their pods what another asks
GPU_STEPS = ("warm_start", "extract", "train", "boost", "servable", "score")  # the ones whose image brings CUDA along


def compile_pipeline(config: RunConfig, output: Path, graph: Graph = ensemble_pipeline, **defaults: Any) -> None:
    """Write the pipeline, or another ``graph``, as IR YAML for Kubeflow Pipelines to ``output``.

    ``config`` is the default of the parameter of that name; one that is too large for that is put into its store, and
    the default refers to it. ``defaults`` are those of the graph's other parameters. A run is named after KFP's id of
    it, so that a recurring run never meets its past.

    Raises:
        UserError: the config cannot work on a cluster.
    """
    check_cluster(config)
    header, compiled = _compiled(graph)
    spec = copy.deepcopy(compiled)
    executors = spec["deploymentSpec"]["executors"]
    steps = {label: _step(executor["container"]) for label, executor in executors.items()}
    asked = {label: _asked(config, step) for label, step in steps.items()}
    for label, executor in executors.items():
        equip(executor["container"], config, asked[label])
    _set_retries(spec, asked)
    _set_parameters(spec, {"config": pack(_in_pods(config), config.storage), **defaults})
    pods = {label: pod(step, config, asked[label]) for label, step in steps.items()}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": pods}}}}
    if config.cluster.service_account:
        header += f"# Service account: {config.cluster.service_account} (a run is given it when it is created)\n"
    ParseDict(spec, PipelineSpec())  # what KFP could not read must not leave this place
    ParseDict(platform, PlatformSpec())
    with writable(output):
        output.write_text(header + yaml.dump_all([spec, platform], Dumper=yaml.CSafeDumper), encoding="utf-8")


def check_cluster(config: RunConfig) -> None:
    """Find out whether the config can work on a cluster.

    Raises:
        UserError: it cannot, for all these reasons.
    """
    if problems := tuple(_problems(config)):
        raise UserError("the config cannot run on a cluster", problems=problems, remedy="mend these settings")


def _in_pods(config: RunConfig) -> RunConfig:
    """The config as the steps get it: this machine's file of certificates is not there, theirs comes by environment."""
    storage = config.storage.model_copy(update={"ca_bundle": None})
    model = config.model.model_copy(update={"storage": storage}) if config.model.storage else config.model
    return config.model_copy(update={"storage": storage, "model": model})


def _problems(config: RunConfig) -> Iterator[str]:
    if not (config.storage.uri or "").startswith("s3://"):
        yield "storage.uri: pods share no folder; name a bucket, s3://bucket/prefix"
    if (config.tracking.uri or "sqlite:").startswith("sqlite:"):
        yield "tracking.uri: pods share no folder; name an MLflow server"
    if config.storage.ca_bundle is not None and config.cluster.ca_config_map is None:
        file = config.storage.ca_bundle
        yield f"storage.ca_bundle: pods have no {file}; name a ConfigMap that holds it as ca.crt: cluster.ca_config_map"
    for step, asked in config.resources.items():
        if asked.gpus and step not in GPU_STEPS:
            yield f"resources.{step}.gpus: {step} has no use for a GPU; only {', '.join(GPU_STEPS)} have"
        elif asked.gpus and config.model.device == "cpu":
            yield f"resources.{step}.gpus: model.device is cpu, so a GPU would lie idle"


@functools.cache
def _compiled(graph: Graph) -> tuple[str, dict[str, Any]]:
    """The comment that the compiler puts on top, and the pipeline's specification; the same for every config."""
    with tempfile.TemporaryDirectory(prefix="loraloom-") as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(graph, str(path))
        text = path.read_text(encoding="utf-8")
    shown = ("# PIPELINE DEFINITION", "# Name:", "# Description:")
    header = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(shown))
    return header, yaml.load(text, yaml.CSafeLoader)  # as safe, ten times as fast


def _step(container: dict[str, Any]) -> str:
    """The step that a container runs, as the config calls it."""
    return str(container["args"][container["args"].index("--function_to_execute") + 1])


def _asked(config: RunConfig, step: str) -> StepResources:
    named = {str(name): resources for name, resources in config.resources.items()}
    return named.get(ALIKE.get(step, step), StepResources())


def _dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tasks of the pipeline, of its nested pipelines and of their loops."""
    for part in (spec["root"], *spec["components"].values()):
        if "dag" in part:
            yield part["dag"]["tasks"]


def _set_retries(spec: dict[str, Any], asked: dict[str, StepResources]) -> None:
    """Retries belong to the tasks that run a container, wherever in the graph they stand."""
    for tasks in _dags(spec):
        for task in tasks.values():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label and (policy := retry_policy(asked[label])):
                task["retryPolicy"] = policy


def _set_parameters(spec: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Give each parameter its default, and put KFP's run id in the place of ``run_name``: nobody thinks of names."""
    declared = spec["root"]["inputDefinitions"]["parameters"]
    spec["root"]["inputDefinitions"]["parameters"] = {
        name: {"parameterType": declared[name]["parameterType"], "isOptional": True, "defaultValue": value}
        for name, value in defaults.items()
    }
    for task in spec["root"]["dag"]["tasks"].values():
        parameters = task["inputs"]["parameters"]
        for name in ("run_name", "pipelinechannel--run_name"):  # a task's own, and what a group hands to its tasks
            if name in parameters:
                parameters[name] = {"runtimeValue": {"constant": dsl.PIPELINE_JOB_ID_PLACEHOLDER}}
