"""Pack an ensemble folder as an MLflow model: code, adapters, signature and pins, but not the base model."""

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import pyfunc
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from components.prompts import template_fields
from components.tracking import MlflowClient

MODEL_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "huggingface-hub")
# The code imports bitsandbytes whatever the quantization.
LIBRARIES = ("mlflow", *MODEL_LIBRARIES, "bitsandbytes", "numpy", "scipy", "pandas", "pydantic")
PACKAGE = Path(__file__).parents[1]


def log_model(
    client: MlflowClient, name: str, run_id: str, folder: Path, description: Mapping[str, Any]
) -> tuple[str, str]:
    """Log the model under ``run_id``; its id and where its files are.

    ``mlflow.pyfunc.log_model`` takes experiment and store from global state, so its steps are taken one by one.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id, model_type="ensemble")
    try:
        with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
            path = Path(temporary) / "model"
            _save_model(path, folder, description, run_id, logged.model_id)
            client.log_model_artifacts(logged.model_id, str(path))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, logged.artifact_location


def _save_model(path: Path, folder: Path, description: Mapping[str, Any], run_id: str, model_id: str) -> None:
    with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
        # MLflow names an artifact after its folder; a fixed name makes it findable. (It refuses a symbolic link.)
        ensemble = shutil.copytree(folder, Path(temporary) / "ensemble")
        pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"ensemble": str(ensemble)},
            code_paths=[str(PACKAGE)],
            pip_requirements=requirements(),
            signature=signature(description),
            input_example=_example(description),
            mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
        )


def requirements() -> list[str]:
    """Exact pins of what a prediction needs, as installed here (without a build's local label, ``+cpu``)."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in LIBRARIES]


def asked_fields(description: Mapping[str, Any]) -> list[str]:
    """Every field that a template of the ensemble's classification datasets names, sorted."""
    templates = [dataset["template"] for dataset in description["datasets"].values() if not dataset["completion"]]
    return sorted({name for template in templates for name in template_fields(template)})


def signature(description: Mapping[str, Any]) -> ModelSignature:
    """Every column is optional: a field is needed by the datasets whose template names it, a dataset by no row."""
    fields = [ColSpec("string", name, required=False) for name in asked_fields(description)]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "dataset", required=False), *fields]),
        outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability"), ColSpec("string", "dataset")]),
        params=ParamSchema(
            [
                ParamSpec("mode", "string", "auto"),
                ParamSpec("batch_tokens", "integer", 8192),
                ParamSpec("return_probabilities", "boolean", False),
            ]
        ),
    )


def _example(description: Mapping[str, Any]) -> Any:
    names = [name for name, dataset in description["datasets"].items() if not dataset["completion"]]
    fields = {field: ["An example."] for field in asked_fields(description)}
    return (pd.DataFrame({"dataset": names[:1], **fields}), {"return_probabilities": False}) if names else None
