"""The pipelines that a config alone describes, by the step that each ends with."""

from importlib import import_module
from typing import Any, Literal

Until = Literal["partition", "promote", "judge", "select", "confirm"]
PIPELINES: dict[Until, str] = {  # module:attribute
    "partition": "pipelines.ensemble:plan_pipeline",
    "promote": "pipelines.ensemble:ensemble_pipeline",
    "judge": "pipelines.validation:validation_pipeline",
    "select": "pipelines.selection:selection_pipeline",
    "confirm": "pipelines.selection:confirmed_selection_pipeline",
}


def graph_of(pipeline: str) -> Any:
    """The graph (kfp's ``GraphComponent``) that ``module:attribute`` names."""
    module, _, attribute = pipeline.partition(":")
    return getattr(import_module(module), attribute)
