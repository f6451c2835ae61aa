"""The pipeline of `loraloom validate`: the plan, real fine-tunes of some subsets, what they say of the estimates."""

from kfp import dsl

from components.adapters.component import fine_tune
from components.gradients.component import linearity
from components.registry.component import close_run
from components.validation.component import judge, sample
from pipelines.ensemble import PARALLELISM, open_and_prepare, plan_steps


@dsl.pipeline(name="fine-tune-all")
def fine_tune_all(
    config: str, run_name: str, jobs: list[str], datasets: dsl.Input[dsl.Dataset], start: dsl.Input[dsl.Model]
) -> list[dsl.Artifact]:
    """Every subset, once a seed."""
    with dsl.ParallelFor(jobs, parallelism=PARALLELISM) as job:
        task = fine_tune(config=config, run_name=run_name, job=job, datasets=datasets, start=start)
        task.set_caching_options(False)
    return dsl.Collected(task.outputs["trials"])


@dsl.pipeline(name="loraloom-validation", description="Estimates compared with real fine-tunes.")
def validation_pipeline(config: str, run_name: str) -> None:
    """Everything up to the partition, and what it is worth."""
    run = {"config": config, "run_name": run_name}
    closed = close_run(**run, last="judge")
    closed.set_caching_options(False)
    with dsl.ExitHandler(closed):
        opened, prepared = open_and_prepare(run)
        start, features, estimates, planned = plan_steps(run, opened, prepared)
        rows, theta, groups = prepared.outputs["datasets"], start.outputs["start"], planned.outputs["groups"]
        estimated = estimates.outputs["estimates"]
        linear = linearity(**run, datasets=rows, start=theta, features=features.output, groups=groups)
        chosen = sample(**run, datasets=rows, estimates=estimated, groups=groups)
        tuned = fine_tune_all(**run, jobs=chosen.outputs["Output"], datasets=rows, start=theta)
        judged = judge(
            **run, context=opened.output, datasets=rows, start=theta, features=features.output, estimates=estimated,
            subsets=chosen.outputs["subsets"], linear=linear.outputs["linear"], trials=tuned.output,
        )  # fmt: skip
        for task in (linear, chosen, tuned, judged):
            task.set_caching_options(False)
