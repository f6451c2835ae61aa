"""Killed at any moment, the pipeline goes on: to the same ensemble, nothing finished made twice, one version."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.artifacts import MANIFEST, load
from components.object_store import LocalStore
from components.tracking import connect
from tests.faults.conftest import Digests, Finished, digests
from tests.faults.kill import AGAIN, Moment, Outcome, run_once
from tests.listener import listening

STEPS = (
    "open_run prepare changes warm_start extract estimate partition train boost weigh servable evaluate register "
    "promote"
).split()
NUMBERS = (1, 2, 3, 4, 6, 9, 14, 21, 34, 55)
KILLED = -9


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "root"
    assert not (tmp_path / "root" / AGAIN).exists(), (tmp_path / "root" / AGAIN).read_text()


def check_store(root: Path) -> None:
    """Whatever reads as an artifact is whole."""
    store = LocalStore(root / "store")
    for key in store.keys(""):
        if key.endswith(f"/{MANIFEST}"):
            load(store, key.removesuffix(f"/{MANIFEST}"))  # compares every checksum


def check_end(root: Path, done: Outcome, finished: Finished) -> None:
    """The same ensemble, registered once, and every adapter too."""
    assert done.exit_code == 0, done.log
    if "unchanged" in done.summary:  # killed after the verdict: nothing was left to do
        assert done.summary["unchanged"]["version"] == "1"
    else:
        assert digests(done.summary) == finished.digests
    check_store(root)
    client = connect(f"sqlite:///{root}/mlflow.db")
    assert [int(version.version) for version in client.search_model_versions("name = 'small'")] == [1]
    assert made_of(root) == made_of(finished.root)
    adapters = [version.tags["digest"] for version in client.search_model_versions("name = 'small-adapters'")]
    assert len(adapters) == len(set(adapters))


def made_of(root: Path) -> Digests:
    """Digests of what the champion says it was made of, and its own; without the predictions, which tell of costs."""
    champion = connect(f"sqlite:///{root}/mlflow.db").get_model_version_by_alias("small", "champion")
    return {
        key: value for key, value in champion.tags.items() if key.endswith("digest") and key != "predictions.digest"
    }


@pytest.mark.parametrize("moments", [[Moment("extract", 3), Moment("train", 9), Moment("register", 6)]])
def test_killed_three_times_it_ends_as_if_nobody_had(
    moments: list[Moment], config: Path, root: Path, finished: Finished
) -> None:
    for moment in moments:
        assert run_once(config, root, moment).exit_code == KILLED
        check_store(root)
    check_end(root, run_once(config, root, None), finished)


@pytest.mark.faults
def test_killed_at_many_moments_of_every_step(config: Path, root: Path, finished: Finished) -> None:
    kills = 0
    for step in STEPS:
        for number in NUMBERS:
            killed = run_once(config, root, Moment(step, number))
            if step == STEPS[-1] and "unchanged" in killed.summary:
                break  # it was killed after the verdict
            assert killed.exit_code == KILLED, f"{step}, change {number}: {killed.log}"
            kills += 1
            check_store(root)
            if killed.passed:
                break
    assert kills > 2 * len(STEPS)
    check_end(root, run_once(config, root, None), finished)


@pytest.mark.faults
def test_killed_at_random_moments(config: Path, root: Path, finished: Finished) -> None:
    moments = random.Random(0)
    for _ in range(8):
        run_once(config, root, None, seconds=moments.uniform(0.5, 6))
        check_store(root)
    check_end(root, run_once(config, root, None), finished)


@pytest.mark.faults
def test_a_version_never_waits_for_a_person_who_was_not_told(config: Path, root: Path) -> None:
    asked = yaml.safe_load(config.read_text()) | {"registry": {"promote": "manual"}}
    manual = config.with_name("manual.yaml")
    manual.write_text(yaml.safe_dump(asked))
    heard = []
    with listening() as listener:
        for number in NUMBERS:
            killed = run_once(manual, root, Moment("promote", number), environment={"LORALOOM_WEBHOOK": listener.url})
            heard.append(len(listener.received))
            client = connect(f"sqlite:///{root}/mlflow.db")
            if any("gate.decision" in one.tags for one in client.search_model_versions("name = 'small'")):
                assert heard[-1], killed.log
                break
        assert run_once(manual, root, None, environment={"LORALOOM_WEBHOOK": listener.url}).exit_code == 0
        assert {told["event"] for told in listener.received} == {"promotion_waits"}
    assert heard == [1, 2], "killed before the verdict is written, and right after"
