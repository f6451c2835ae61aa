"""Two-step pipelines that end well, in an error, in a crash, or not at all: what the local runner is tested with."""

from kfp import dsl

task = dsl.component(base_image="python:3.11", packages_to_install=[], install_kfp_package=False)


@task
def first(config: str) -> str:
    import os

    from components import events

    events.started("first", "")
    events.said("first", "", f"{config}, {os.environ['OMP_NUM_THREADS']} threads")
    events.finished("first", "", reused=True, seconds=0.1)
    return config.upper()


@task
def second(text: str, run_name: str) -> None:
    import os
    import time
    from pathlib import Path

    from components import events

    events.started("second", "b")
    if text == "WRONG":
        events.failed("second", "b", "line 3 has no label", "mend it", ["data.jsonl:3"])
        raise SystemExit(2)
    if text == "CRASH":
        raise ZeroDivisionError("no one foresaw this")
    if text == "KILL":
        os.kill(os.getpid(), 9)
    if text == "WAIT":
        Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
        time.sleep(60)
    events.advanced("second", "b", 1, 1, run_name)
    events.finished("second", "b", reused=False, seconds=2)


@dsl.pipeline(name="fake")
def pipeline(config: str, run_name: str) -> None:
    second(text=first(config=config).output, run_name=run_name)
