"""The config's recurring run on Kubeflow Pipelines: one by the config's name, never two at work, nothing made up for.

Scheduled runs train no adapter only to compare with; the multi-task adapter, where the config asks for it, is a member
of the ensemble and stays. Every run of a schedule is named after KFP's id of it, as every run on a cluster is.
"""

from collections.abc import Callable, Iterable
from typing import Any

from components import cron
from components.config import RunConfig
from components.errors import UserError
from components.members import MULTITASK
from pipelines.kfp_api import Api, called, once
from pipelines.submit import Version, experiment_id, find_experiment, upload

AT_ONCE = 1


def schedule(api: Api, config: RunConfig) -> tuple[Any, bool]:
    """Create the recurring run of ``config``, in the place of what has its name; one that is just so is left alone.

    The old one goes when the new one is there: a schedule is never lost to an error in between.

    Returns:
        KFP's recurring run, and whether it is new.

    Raises:
        UserError: the config has no schedule or none that could run, or as ``submit``.
    """
    expression = _expression(config)
    members = [name for name in config.ensemble.baselines if name == MULTITASK]
    ensemble = config.ensemble.model_copy(update={"baselines": members})
    version = upload(api, config.model_copy(update={"ensemble": ensemble}))
    before = [entry.recurring_run_id for entry in recurring_runs(api, config)]

    def find() -> Any | None:
        return next((e for e in recurring_runs(api, config) if _is(e, version, expression, config)), None)

    def create() -> Any:
        with api.asked("create the schedule"):
            return api.client.create_recurring_run(
                experiment_id(api, config),
                config.name,
                cron_expression=expression,
                max_concurrency=AT_ONCE,
                no_catchup=True,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=config.cluster.service_account,
            )

    kept = once(find, create)
    for entry in before:
        if entry != kept.recurring_run_id:
            with api.asked("delete the schedule that was replaced"):
                api.client.delete_recurring_run(entry)
    return kept, kept.recurring_run_id not in before


def recurring_runs(api: Api, config: RunConfig) -> list[Any]:
    """The recurring runs by the config's name in its experiment; more than one only where somebody else made them."""
    experiment = find_experiment(api, config)
    if experiment is None:
        return []
    with api.asked("list the schedules"):
        found = api.client.list_recurring_runs(page_size=100, experiment_id=experiment, filter=called(config.name))
    return list(found.recurring_runs or [])


def pause(api: Api, entries: Iterable[Any]) -> None:
    """Let recurring runs rest."""
    _each(api, entries, "pause the schedule", api.client.disable_recurring_run)


def resume(api: Api, entries: Iterable[Any]) -> None:
    """Let recurring runs go on; what they missed stays missed."""
    _each(api, entries, "resume the schedule", api.client.enable_recurring_run)


def delete(api: Api, entries: Iterable[Any]) -> None:
    """Remove recurring runs; the runs they made stay."""
    _each(api, entries, "delete the schedule", api.client.delete_recurring_run)


def _expression(config: RunConfig) -> str:
    if config.schedule is None:
        raise UserError("the config has no schedule", remedy='add one: schedule: { cron: "0 3 * * SUN" }')
    if what := cron.problem(config.schedule.cron):
        raise UserError(f"schedule.cron: {what}", remedy="five fields, or six with seconds first")
    return cron.six_fields(config.schedule.cron)


def _is(entry: Any, version: Version, expression: str, config: RunConfig) -> bool:
    """Whether a recurring run is at work on this version at these times, and under the same account."""
    reference, trigger = entry.pipeline_version_reference, entry.trigger
    return bool(
        reference
        and reference.pipeline_version_id == version.version_id
        and trigger
        and trigger.cron_schedule
        and trigger.cron_schedule.cron == expression
        and entry.status == "ENABLED"
        and (entry.service_account or None) == config.cluster.service_account
    )


def _each(api: Api, entries: Iterable[Any], what: str, act: Callable[[str], Any]) -> None:
    for entry in entries:
        with api.asked(what):
            act(entry.recurring_run_id)
