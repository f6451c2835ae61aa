"""What the steps of a run on Kubeflow Pipelines are doing: once, or until the run ends.

KFP lists a run's tasks along with drivers, executors and groups of its own; ours are the ones with a step's name. They
are shown as the steps of a local run are.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from time import sleep
from typing import Any, get_args

from components.cluster_config import Step
from components.errors import UserError
from components.summary import ORDER
from pipelines.kfp_api import Api, Unanswered
from pipelines.progress import Event, View

STEPS = {*get_args(Step), *ORDER}
FANNED_OUT = ("extract", "train", "boost", "fine_tune", "score")
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
SECONDS_BETWEEN_LOOKS = 5.0
LOST_LOOKS = 12  # in a row, each with retries of its own; then somebody should know


@dataclass(frozen=True)
class StepState:
    """A step of a run, or one member of a fan-out (``part``), as KFP sees it."""

    id: str
    step: str
    part: str
    state: str
    seconds: float
    message: str


def step_states(run: Any) -> list[StepState]:
    """The steps that a run has begun, in the order in which they began."""
    details = run.run_details.task_details if run.run_details else None
    tasks = [task for task in details or [] if _step(task.display_name)]
    counts: dict[str, int] = defaultdict(int)
    found = []
    for task in sorted(tasks, key=lambda task: (_begun(task), task.task_id)):
        step = _step(task.display_name)
        counts[step] += 1
        part = f"#{counts[step]}" if step in FANNED_OUT else ""
        message = (task.error.message or "") if task.error else ""
        found.append(StepState(task.task_id, step, part, task.state or "PENDING", _seconds(task), message))
    return found


def get_run(api: Api, run_id: str) -> Any:
    """A run with its tasks."""
    with api.asked(f"show the run {run_id}"):
        return api.client.get_run(run_id)


def follow(api: Api, run_id: str, view: View, again: str) -> Any:
    """Show the steps until the run ends; an API that is away for a while is waited for.

    Args:
        again: the command that shows them once more.

    Raises:
        UserError: the run did not succeed, or the API has been away for long (the run goes on then).
    """
    shown: dict[str, str] = {}
    lost = 0
    while True:
        try:
            run = get_run(api, run_id)
        except Unanswered as error:
            lost += 1
            if lost == LOST_LOOKS:
                what = f"lost sight of the run {run_id}, which goes on: {error.what}"
                raise UserError(what, remedy=again) from error
        else:
            lost = 0
            for state in step_states(run):
                for event in _events(state, shown.get(state.id, "")):
                    view.show(event)
                shown[state.id] = state.state
            if run.state in ENDED:
                return _ended_well(api, run)
        sleep(SECONDS_BETWEEN_LOOKS)


def _ended_well(api: Api, run: Any) -> Any:
    if run.state == "SUCCEEDED":
        return run
    failed = [state for state in step_states(run) if state.state == "FAILED"]
    problems = tuple(
        f"{' '.join(filter(None, (state.step, state.part)))}: {state.message or 'failed'}" for state in failed
    )
    raise UserError(
        f"the run {run.display_name} {'was canceled' if run.state == 'CANCELED' else 'failed'}",
        problems=problems,
        remedy=f"the steps' logs: {api.run_page(run.run_id)}; the same command goes on from what is finished",
    )


def _events(now: StepState, before: str) -> list[Event]:
    """What there is to tell of a step that was in the state ``before`` at the last look."""
    if now.state == before or now.state in ("PENDING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"):
        return []
    who = {"step": now.step, "part": now.part}
    started = [{"event": "started", **who}] if before in ("", "PENDING") else []
    match now.state:
        case "SUCCEEDED" | "SKIPPED":
            return [*started, {"event": "finished", **who, "reused": now.state == "SKIPPED", "seconds": now.seconds}]
        case "FAILED" | "CANCELED":
            what = now.message or now.state.lower()
            return [*started, {"event": "failed", **who, "what": what, "remedy": "", "problems": []}]
    return started


def _step(display_name: str | None) -> str:
    """The step of this name, '' for what is KFP's own."""
    name = (display_name or "").replace("-", "_")
    return name if name in STEPS else ""


def _begun(task: Any) -> datetime:
    return _aware(task.start_time or task.create_time) or datetime.max.replace(tzinfo=UTC)


def _seconds(task: Any) -> float:
    """How long a task has taken, up to now where it has not ended; KFP writes the epoch for a time that is not yet."""
    start, end = _aware(task.start_time), _aware(task.end_time)
    if start is None:
        return 0.0
    return ((end if end and end > start else datetime.now(UTC)) - start).total_seconds()


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None
