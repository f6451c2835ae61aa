"""The pipelines of `loraloom select`: features, the surrogate's choice, and, asked for, what it really brings."""

from kfp import dsl

from components.registry.component import close_run
from components.selection.component import confirm, select
from pipelines.ensemble import open_and_prepare, understand
from pipelines.validation import fine_tune_all


@dsl.pipeline(name="loraloom-selection", description="Which datasets to train along with one.")
def selection_pipeline(config: str, run_name: str) -> None:
    """Up to the choice."""
    run = {"config": config, "run_name": run_name}
    closed = close_run(**run, last="select")
    closed.set_caching_options(False)
    with dsl.ExitHandler(closed):
        opened, prepared = open_and_prepare(run)
        _, features = understand(run, opened, prepared)
        chosen = select(**run, datasets=prepared.outputs["datasets"], features=features.output)
        chosen.set_caching_options(False)


@dsl.pipeline(name="loraloom-selection-confirmed", description="Which datasets to train along with one, fine-tuned.")
def confirmed_selection_pipeline(config: str, run_name: str) -> None:
    """The choice, and real fine-tunes of it, of all datasets, of the target alone."""
    run = {"config": config, "run_name": run_name}
    closed = close_run(**run, last="confirm")
    closed.set_caching_options(False)
    with dsl.ExitHandler(closed):
        opened, prepared = open_and_prepare(run)
        rows = prepared.outputs["datasets"]
        start, features = understand(run, opened, prepared)
        chosen = select(**run, datasets=rows, features=features.output)
        tuned = fine_tune_all(**run, jobs=chosen.outputs["Output"], datasets=rows, start=start.outputs["start"])
        confirmed = confirm(
            **run, context=opened.output, datasets=rows, selection=chosen.outputs["selection"], trials=tuned.output
        )
        for task in (chosen, tuned, confirmed):
            task.set_caching_options(False)
