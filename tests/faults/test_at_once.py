"""Two runs on one store and one registry at the same time, and two promotions at the same time."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from components import tracking
from components.model_versions import create_version, move_alias, only_one, register_adapter, tag_version
from components.object_store import LocalStore
from components.registry.aliases import CHAMPION, holder, move, moves, promote_by_hand
from components.step import read_records
from components.tracking import MlflowClient
from tests.faults.conftest import Finished, digests
from tests.faults.kill import IMPORTED, Run
from tests.faults.test_killed import check_store


def test_two_runs_on_one_store_end_with_one_ensemble(finished: Finished, tmp_path: Path) -> None:
    config = yaml.safe_load(finished.config.read_text())
    shared = tmp_path / "shared"
    shared.mkdir()
    config["storage"] = {"uri": str(shared / "store")}
    config["tracking"] = {"uri": f"sqlite:///{shared}/mlflow.db"}
    config_file = finished.config.with_name("shared.yaml")
    config_file.write_text(yaml.safe_dump(config))
    tracking.connect(f"sqlite:///{shared}/mlflow.db")
    runs = [Run(config_file, tmp_path / name) for name in ("one", "two")]
    done = [run.wait() for run in runs]
    assert [one.exit_code for one in done] == [0, 0], done[0].log + done[1].log
    assert digests(done[0].summary) == digests(done[1].summary) == finished.digests
    check_store(shared)
    client = tracking.connect(f"sqlite:///{shared}/mlflow.db")
    assert len(client.search_model_versions("name = 'small'")) == 1
    adapters = [version.tags["digest"] for version in client.search_model_versions("name = 'small-adapters'")]
    assert len(adapters) == len(set(adapters)), "an adapter was registered twice"
    assert holder(client, "small", CHAMPION) is not None
    store = LocalStore(shared / "store")
    steps = [{record["step"] for record in read_records(store, one.summary["run_id"])} for one in done]
    assert (
        steps[0]
        == steps[1]
        == {record["step"] for record in read_records(LocalStore(finished.root / "store"), finished.summary["run_id"])}
    )
    for one in done:
        assert client.get_run(one.summary["mlflow"]["run_id"]).info.status == "FINISHED"


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return tracking.connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_versions_of_one_thing_made_at_once_become_one(client: MlflowClient) -> None:
    """Both looked before either had made one: the later takes its own back."""
    run_id = tracking.open_run(client, "desk", "run")
    both = [create_version(client, "desk", "somewhere", run_id, {"digest": "d" * 64}) for _ in range(2)]
    kept = [only_one(client, version, "digest") for version in reversed(both)]
    assert [int(version.version) for version in kept] == [1, 1]
    assert [int(version.version) for version in client.search_model_versions("name = 'desk'")] == [1]


def test_adapters_registered_at_once_are_registered_once(client: MlflowClient) -> None:
    run_id = tracking.open_run(client, "desk", "run")
    together = threading.Barrier(4)

    def register(_: int) -> int:
        together.wait()
        return register_adapter(client, "desk", run_id, "adapter", "a" * 64, {})

    with ThreadPoolExecutor(4) as pool:
        numbers = set(pool.map(register, range(4)))
    (version,) = client.search_model_versions("name = 'desk-adapters'")
    assert numbers == {int(version.version)}


def test_tags_and_aliases_set_at_once_are_set(client: MlflowClient) -> None:
    """MLflow by itself refuses one or the other of those who come together."""
    create_version(client, "desk", "somewhere", tracking.open_run(client, "desk", "run"), {})
    together = threading.Barrier(4, timeout=60)  # where one fails, the others end too

    def judge(_: int) -> None:
        for number in range(20):
            together.wait()
            tag_version(client, "desk", "1", f"tag-{number}", "same")
            move_alias(client, "desk", f"alias-{number}", "1")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(judge, range(4)))
    found = client.get_model_version("desk", "1")
    assert found.tags == {f"tag-{number}": "same" for number in range(20)}
    assert sorted(found.aliases) == sorted(f"alias-{number}" for number in range(20))


def _promote(uri: str, number: str, ready: "multiprocessing.synchronize.Barrier") -> None:
    client = tracking.connect(uri)
    ready.wait()
    promote_by_hand(client, "desk", number, by=number, reason="at once")


def test_two_promotions_at_once_leave_one_champion_and_both_records(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = tracking.connect(uri)
    run_id = tracking.open_run(client, "desk", "run")
    for number in range(3):
        create_version(client, "desk", "somewhere", run_id, {"digest": str(number)})
    move(client, "desk", "1", "promoted", by="gate", reason="first")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    ready = context.Barrier(2)
    people = [context.Process(target=_promote, args=(uri, number, ready)) for number in ("2", "3")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert [person.exitcode for person in people] == [0, 0]
    champion = holder(client, "desk", CHAMPION)
    assert champion is not None
    assert str(champion.version) in ("2", "3")
    assert sorted(one.version for one in moves(client, "desk")) == ["1", "2", "3"]
