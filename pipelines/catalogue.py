"""The pipelines that a config alone describes, by the step that each ends with, and what each asks of the config."""

from importlib import import_module
from typing import Any, Literal

from components.config import RunConfig
from components.errors import UserError

Until = Literal["partition", "promote", "judge", "select", "confirm"]
PIPELINES: dict[Until, str] = {  # module:attribute
    "partition": "pipelines.ensemble:plan_pipeline",
    "promote": "pipelines.ensemble:ensemble_pipeline",
    "judge": "pipelines.validation:validation_pipeline",
    "select": "pipelines.selection:selection_pipeline",
    "confirm": "pipelines.selection:confirmed_selection_pipeline",
}


def check_until(config: RunConfig, until: Until) -> None:
    """Find out whether the config has what the pipeline that ends with ``until`` asks of it beside what all do.

    Raises:
        UserError: subsets are asked about and there is one dataset, or none is named to choose others for.
    """
    if until in ("judge", "select", "confirm") and len(config.datasets) < 2:
        raise UserError("one dataset has no subsets to compare", remedy="add others to the config")
    if until in ("select", "confirm") and config.selection.target is None:
        raise UserError(
            f"--until {until} chooses datasets for one, and selection.target names none",
            remedy=f"set selection.target in the config: one of {', '.join(entry.name for entry in config.datasets)}",
        )


def graph_of(pipeline: str) -> Any:
    """The graph (kfp's ``GraphComponent``) that ``module:attribute`` names."""
    module, _, attribute = pipeline.partition(":")
    return getattr(import_module(module), attribute)
