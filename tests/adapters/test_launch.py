"""Two processes train the adapter that one would have, and a process that dies takes nothing with it."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from components.adapters.launch import processes, train_in_processes
from components.adapters.train import _trained_elsewhere
from components.config import ModelConfig, TrainingConfig
from components.errors import UserError
from components.events import VARIABLE
from pipelines.progress import Tail
from tests.adapter_task import TRAINING, AdapterTask, weights_of
from tests.conftest import nf4
from tests.small_models import write_llama
from tests.tiny_ensemble import write_base
from tests.tiny_training import assert_same

# Weights move by some 0.1. Rows are added up in another order, and Adam magnifies that where gradients vanish;
# measured: 3e-7.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


def workers() -> list[psutil.Process]:
    """The training processes that this one has started, the first one first."""
    family = psutil.Process().children(recursive=True)
    found = [each for each in family if each.status() != psutil.STATUS_ZOMBIE]
    found = [each for each in found if "components.adapters.worker" in each.cmdline()]
    return sorted(found, key=lambda each: each.environ()["RANK"])


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_the_adapter_of_one(model: ModelConfig, tmp_path: Path, sharding: str) -> None:
    """``fsdp``: also with the base in four bits and activations recomputed."""
    training = TRAINING
    if sharding == "fsdp":
        model = nf4(write_llama(tmp_path / "wide", 64))
        training = TRAINING.model_copy(update={"gradient_checkpointing": True})
    work = AdapterTask(model, tmp_path, training, sharding=sharding)
    expected, facts = work.alone()
    ours, told = work.together()
    assert_same(ours, expected, atol=TOLERANCE)
    before = weights_of(work.theta.folder)
    assert min((ours[name] - before[name]).abs().max().item() for name in ours) > 1e-2  # every matrix has moved
    assert told["tokens"] == facts["tokens"]
    assert told["flops"] == facts["flops"]
    assert told["curve"] == [pytest.approx(point, abs=1e-5) for point in facts["curve"]]
    assert list(work.store.keys("checkpoints/")) == []


class Killer(threading.Thread):
    """Kills the second of two training processes as soon as there is a checkpoint."""

    def __init__(self, work: AdapterTask) -> None:
        super().__init__(daemon=True)
        self.newest = f"checkpoints/{work.task.job}/newest"
        self.store = work.store

    def run(self) -> None:
        while not self.store.exists(self.newest):
            time.sleep(0.01)
        workers()[1].kill()


def test_a_process_that_is_killed_fails_the_step_and_the_next_try_goes_on(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TRAINING.model_copy(update={"epochs": 12, "patience": 12})
    work = AdapterTask(model, tmp_path, training)
    expected, facts = work.alone()

    Killer(work).start()
    with pytest.raises(UserError, match=r"(?s)training process 2 of 2 was killed by SIGKILL\n-> .*last checkpoint"):
        train_in_processes(work.step, work.task, 2)
    assert workers() == []
    assert list(work.store.keys("trained/")) == list(work.store.keys("adapter/")) == []

    newest = work.store.read(f"checkpoints/{work.task.job}/newest").decode().splitlines()[0]
    reached = int(newest.removeprefix("checkpoint-"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events"))
    ours, told = work.together()
    steps = [event["done"] for event in Tail(tmp_path / "events").read()]
    assert steps[0] == reached + 1 > 1
    assert_same(ours, expected, atol=TOLERANCE)
    assert told["curve"] == [pytest.approx(point, abs=1e-4) for point in facts["curve"]]
    assert list(work.store.keys("checkpoints/")) == []


def test_what_the_user_can_mend_arrives_as_such(model: ModelConfig, tmp_path: Path) -> None:
    work = AdapterTask(model, tmp_path, TrainingConfig(epochs=1, learning_rate=1e38, batch_size=8))
    with pytest.raises(UserError, match=r"(?s)training diverged.*-> lower training.learning_rate"):
        train_in_processes(work.step, work.task, 2)
    assert list(work.store.keys("trained/")) == []


def test_any_other_failure_is_told_in_its_own_words(model: ModelConfig, tmp_path: Path) -> None:
    work = AdapterTask(model, tmp_path)
    no_adapter = replace(work.task, start=work.task.prepared["mood"])
    with pytest.raises(RuntimeError, match=r"training process \d of 2 ended with exit code 1: .*adapter_config.json"):
        train_in_processes(work.step, no_adapter, 2)


def test_processes_follow_the_gpus_asked_for_and_seen(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    anywhere = model.model_copy(update={"device": "auto"})
    work = AdapterTask(model, tmp_path / "cpu", gpus=4)
    assert processes(work.step, 4) == 1
    assert capsys.readouterr().out == ""
    four = AdapterTask(anywhere, tmp_path / "auto", gpus=4)
    for visible, expected in ((2, 1), (4, 4), (8, 4)):
        monkeypatch.setattr("torch.cuda.device_count", lambda visible=visible: visible)
        assert processes(four.step, 4) == expected
    assert capsys.readouterr().out.splitlines() == [
        "train group-0: resources.train.gpus is 4, but 2 are visible here: one process trains"
    ]


def test_machines_are_for_clusters(model: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = AdapterTask(model, tmp_path, nodes=2)
    assert not _trained_elsewhere(work.step, work.task)
    assert "resources.train.nodes is 2, but this is no pod of a cluster" in capsys.readouterr().out
