"""The local runner with real kfp pipelines of two small steps."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from components.errors import UserError
from pipelines.crash import PipelineCrash, failure
from pipelines.local import GPUS, WAITING, _environment, execute, locked


@pytest.fixture(autouse=True)
def fake_pipelines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the runner's process find the pipelines beside this file, and none in the working directory."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    hiding = tmp_path / "pipelines"
    hiding.mkdir()
    (hiding / "__init__.py").write_text("raise RuntimeError('a folder of the user hides ours')")
    monkeypatch.chdir(tmp_path)


def run(root: Path, config: str, *, debug: bool = False) -> None:
    with locked(root) as lock:
        execute("fake_pipelines:pipeline", config, root, "run-1", lock=lock, debug=debug)


def test_success_shows_the_steps_and_keeps_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "root", "fine", debug=True)
    threads = max(1, len(os.sched_getaffinity(0)) // (1 if GPUS.is_dir() else 2))
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "first: started",
        f"first: fine, {threads} threads",
        "first: reused",
        "second b: started",
        "second b: finished in 2.0 s",
    ]
    assert "finished with status SUCCESS" in err  # --debug shows the raw log, which is kept in any case
    assert "SUCCESS" in (tmp_path / "root/logs/run-1.log").read_text()
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["lock", "logs", "pipeline"]


def test_user_error_comes_back_whole(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path / "root", "wrong")
    error = caught.value
    assert (error.what, error.remedy, error.problems) == ("line 3 has no label", "mend it", ("data.jsonl:3",))


def test_crash_names_the_log_and_shows_its_end(tmp_path: Path) -> None:
    with pytest.raises(PipelineCrash) as caught:
        run(tmp_path / "root", "crash")
    crash = caught.value
    assert crash.log == tmp_path / "root/logs/run-1.log"
    assert crash.steps == ("second b crashed: ZeroDivisionError: no one foresaw this",)
    assert "raise ZeroDivisionError" in str(crash)  # for the webhook, whose reader may not reach the log
    assert "\x1b" not in str(crash)


def test_a_crash_that_a_step_told_of_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Traceback (most recent call last):\nKeyError: 'noise of a library'\n")
    at_work = [{"event": "started", "step": "extract", "part": part} for part in "ab"]
    died = {"event": "crashed", "step": "extract", "part": "a", "why": "RuntimeError: no kernel"}
    retried = {"event": "finished", "step": "extract", "part": "a"}
    found = failure([*at_work, died], tmp_path / "log")
    assert isinstance(found, PipelineCrash) and found.steps == ("extract a crashed: RuntimeError: no kernel",)
    found = failure([*at_work, died, retried], tmp_path / "log")
    assert isinstance(found, PipelineCrash) and found.steps == ("extract b crashed: KeyError: 'noise of a library'",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_step_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("PID_FILE", str(pid_file))
    # A shell that starts its jobs in the background has them ignore Ctrl-C, and Python then installs no handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop_when_the_step_is_at_work() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop_when_the_step_is_at_work)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "root", "wait")
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    signal.signal(signal.SIGINT, before)
    with locked(tmp_path / "root"):
        pass  # and the lock is free again


def test_one_run_a_root(tmp_path: Path) -> None:
    with locked(tmp_path / "root"):
        with (
            pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()}, since .*\)"),
            locked(tmp_path / "root"),
        ):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "root"):
        pass


def test_a_killed_step_is_told_from_a_failed_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineCrash) as caught:
        run(tmp_path / "root", "kill")
    assert caught.value.steps == ("second b crashed: something ended it from outside, most often for want of memory",)


def test_idle_threads_leave_the_cores_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert _environment(Path("events.jsonl")).items() >= WAITING.items()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    told = _environment(Path("events.jsonl"))
    assert told["OMP_WAIT_POLICY"] == "active" and "GOMP_SPINCOUNT" not in told
