"""Commands and settings of what runs are ones that the pinned MLflow and loraloom itself know."""

import json
import re
from typing import Any

import mlflow.environment_variables
import typer
import yaml
from mlflow.cli import cli

from pipelines.cli import app
from tests.infra.conftest import INFRA
from tests.infra.manifests import Manifest, of_kind, pods


def settings(manifests: list[Manifest]) -> set[str]:
    """Every MLFLOW_ variable that a container is given, directly or by a ConfigMap."""
    given = {
        each["name"] for pod in pods(manifests) for container in pod.containers for each in container.get("env", [])
    }
    given |= {key for config in of_kind(manifests, "ConfigMap") for key in config["data"]}
    return {name for name in given if name.startswith("MLFLOW_")}


def options(*path: str) -> set[str | None]:
    """The variables that a command reads its options from."""
    command: Any = cli
    for name in path:
        command = command.commands[name]
    return {option.envvar for option in command.params if isinstance(option.envvar, str)}


def test_settings_are_known(manifests: list[Manifest]) -> None:
    composed = set(re.findall(r"^\s+(MLFLOW_\w+):", (INFRA / "compose" / "compose.yaml").read_text(), re.MULTILINE))
    known = set(vars(mlflow.environment_variables)) | options("server")
    # MLflow reads these straight from the environment.
    plain = {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_TRACKING_URI"}
    assert settings(manifests) | composed <= known | plain


def test_commands_parse(manifests: list[Manifest]) -> None:
    commands = [
        container["command"] for pod in pods(manifests) for container in pod.containers if "command" in container
    ]
    ours = [command[1:] for command in commands if command[0] == "mlflow"]
    compose = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())["services"]["mlflow"]["command"]
    assert sorted(command[0] for command in ours) == ["db", "server"]
    for command in [*ours, compose]:
        context, arguments = cli.make_context("mlflow", list(command), resilient_parsing=True), command[1:]
        inner = cli.get_command(context, command[0])
        if command[0] == "db":
            inner, arguments = inner.commands[arguments[0]], arguments[1:]
        inner.make_context(command[0], list(arguments), resilient_parsing=True)


def test_the_served_model_s_arguments_parse(rendered: dict[str, list[Manifest]]) -> None:
    (service,) = of_kind(rendered["production"], "InferenceService")
    entry = (INFRA.parent / "images" / "serving" / "Dockerfile").read_text().partition("ENTRYPOINT ")[2].splitlines()[0]
    (container,) = service["spec"]["predictor"]["containers"]
    command: Any = typer.main.get_command(app)
    python, module, name, *options = json.loads(entry)[1:] + container["args"]
    assert (python, module, name) == ("-m", "pipelines.cli", "serve")
    parsed = command.commands[name].make_context(name, options).params
    assert re.fullmatch(r"[\w-]+@champion", parsed["model"])
    assert (parsed["host"], parsed["port"]) == ("0.0.0.0", container["ports"][0]["containerPort"])
