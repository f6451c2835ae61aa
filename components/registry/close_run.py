"""The step `close_run`: however the pipeline ended, MLflow's parent run ends too.

It is the pipeline's exit handler. What KFP tells such a task of the others differs between its versions (a finished
fan-out can count as running), so the step looks at the records: a pipeline went well if its last step left one, or if
`changes` found that there was nothing to do.
"""

import os

from components import events, tracking
from components.alerts import alert_failure
from components.reconnect import reconnect
from components.step import Step, read_records


def run(config: str, run_name: str, last: str) -> None:
    """End the parent run, and what of its children is still open, as FAILED where the step ``last`` left no record.

    A failure is told to the webhook, unless somebody follows the run: whoever does knows the reason too, and tells it.
    """
    with Step("close_run", config, run_name) as step:
        facts = {record["step"]: record["facts"] for record in read_records(step.store, run_name)}
        ended_early = not facts.get("changes", {"changed": True})["changed"]
        step.facts = {"failed": last not in facts and not ended_early}
        if "open_run" in facts:  # otherwise there is nothing to end
            client = reconnect(str(step.config.tracking.uri))
            tracking.close_run(client, facts["open_run"]["run_id"], failed=step.facts["failed"])
        if step.facts["failed"] and events.VARIABLE not in os.environ:
            finished = sorted(facts)
            what = f"it got no further than {', '.join(finished)}" if finished else "no step ended well"
            step.say_if(alert_failure(step.config, run_name, what, {"finished": finished}))
