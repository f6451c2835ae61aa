"""The pipeline for a cluster: the graph that runs on a laptop too, as IR YAML with the config's images and resources.

The graph is compiled once and knows of no config. What a config adds is written into the compiled text: the containers
of the steps, and the value of the parameter ``config``. So there is one way to build a pipeline, not two.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl
from kfp.components import load_component_from_text

from components.config import ImagesConfig, RunConfig, StepResources
from components.config_transport import pack
from components.errors import UserError
from components.image import IMAGE
from pipelines.ensemble import ensemble_pipeline

ACCELERATOR = "nvidia.com/gpu"
GPU_STEPS = ("warm_start", "extract", "train", "boost")


def compile_pipeline(config: RunConfig, output: Path) -> None:
    """Write the pipeline as IR YAML for Kubeflow Pipelines to ``output``.

    ``config`` is the default of the pipeline's only parameter; one that is too large for that is put into its store,
    and the default refers to it. A run is named after KFP's id of it, so that a recurring run never meets its past.

    Raises:
        UserError: the config cannot work on a cluster.
    """
    problems = tuple(_problems(config))
    if problems:
        raise UserError("the config cannot run on a cluster", problems=problems, remedy="mend these settings")
    header, spec = _compiled()
    for executor in spec["deploymentSpec"]["executors"].values():
        _equip(executor["container"], config)
    _set_parameters(spec["root"], pack(config))
    text = header + yaml.safe_dump(spec)
    load_component_from_text(text)  # what kfp cannot read again must not leave this place
    output.write_text(text, encoding="utf-8")


def image(images: ImagesConfig) -> str:
    """The steps' image: ``<registry>/loraloom/worker:<tag>``, with this version as the default tag."""
    name, _, tag = IMAGE.partition(":")
    return f"{f'{images.registry}/' if images.registry else ''}{name}:{images.tag or tag}"


def _problems(config: RunConfig) -> Iterator[str]:
    if config.storage.uri is None:
        yield "storage.uri: pods share no folder; name a bucket, s3://bucket/prefix"
    if config.tracking.uri is None:
        yield "tracking.uri: pods share no folder; name an MLflow server"
    for step, asked in config.resources.items():
        if asked.gpus and step not in GPU_STEPS:
            yield f"resources.{step}.gpus: {step} has no use for a GPU; only {', '.join(GPU_STEPS)} have"


def _compiled() -> tuple[str, dict[str, Any]]:
    """The comment that the compiler puts on top, and the pipeline's specification."""
    with tempfile.TemporaryDirectory(prefix="loraloom-") as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(ensemble_pipeline, str(path))
        text = path.read_text(encoding="utf-8")
    shown = ("# PIPELINE DEFINITION", "# Name:", "# Description:")
    header = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(shown))
    return header, yaml.safe_load(text)


def _equip(container: dict[str, Any], config: RunConfig) -> None:
    """Give a step's container its image and what it asks of the cluster."""
    container["image"] = image(config.images)
    step = container["args"][container["args"].index("--function_to_execute") + 1]
    asked = {str(name): resources for name, resources in config.resources.items()}.get(step)
    if asked is not None and (resources := _resources(asked)):
        container["resources"] = resources


def _resources(asked: StepResources) -> dict[str, Any]:
    """As limits: Kubernetes takes a limit for the request where none is given."""
    resources: dict[str, Any] = {}
    if asked.cpu is not None:
        resources["resourceCpuLimit"] = asked.cpu
    if asked.memory is not None:
        resources["resourceMemoryLimit"] = asked.memory
    if asked.gpus:
        resources["accelerator"] = {"resourceType": ACCELERATOR, "resourceCount": str(asked.gpus)}
    return resources


def _set_parameters(root: dict[str, Any], config: str) -> None:
    """Give ``config`` its default, and put KFP's run id in the place of ``run_name``: nobody has to think of names."""
    optional = {"parameterType": "STRING", "isOptional": True, "defaultValue": config}
    root["inputDefinitions"]["parameters"] = {"config": optional}
    for task in root["dag"]["tasks"].values():
        task["inputs"]["parameters"]["run_name"] = {"runtimeValue": {"constant": dsl.PIPELINE_JOB_ID_PLACEHOLDER}}
