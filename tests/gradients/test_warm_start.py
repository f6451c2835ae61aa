"""theta*: made once, kept while it serves, made anew when it does not."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import Artifact
from components.config import ModelConfig, TrainingConfig, WarmStartConfig
from components.errors import UserError
from components.events import VARIABLE
from components.gradients.warm_start import run
from components.object_store import LocalStore
from components.prepared import PreparedDataset
from components.step import Step, read_records, read_references
from tests.tiny_ensemble import write_base
from tests.tiny_training import TEMPLATE, publish_datasets, tiny_config, toy_dataset

NAMES = ("mood", "tone", "tune")
LEARNT = WarmStartConfig(epochs=4, samples_per_dataset=24, learning_rate=1e-2, lookahead=0)
RAW = WarmStartConfig(epochs=0)


@dataclass
class Runs:
    """Runs of the step on one store."""

    model: ModelConfig
    folder: Path
    count: int = 0

    def __call__(
        self, datasets: list[PreparedDataset], settings: WarmStartConfig = RAW, champion: str = "", **sections: Any
    ) -> Artifact:
        self.count += 1
        config = tiny_config(self.model, self.folder / "store", warm_start=settings, **sections)
        publish_datasets(LocalStore(self.folder / "store"), datasets, self.folder / "datasets")
        context = json.dumps({"champion": {"start": champion} if champion else {}})
        run(config.model_dump_json(), str(self.count), context, self.folder / "datasets", self.folder / "start")
        with Step("extract", config.model_dump_json(), "after") as step:
            return step.load(self.references, "start")

    @property
    def references(self) -> dict[str, str]:
        """What the last run passed on."""
        return read_references(self.folder / "start")

    @property
    def record(self) -> dict[str, Any]:
        """What the last run left."""
        return read_records(LocalStore(self.folder / "store"), str(self.count))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def start(model: ModelConfig, tmp_path: Path) -> Runs:
    return Runs(model, tmp_path)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was said so far."""
    path = tmp_path / "events"
    monkeypatch.setenv(VARIABLE, str(path))
    return lambda: [e["text"] for e in map(json.loads, path.read_text().splitlines()) if e["event"] == "said"]


def some(*names: str, **changes: Any) -> list[PreparedDataset]:
    return [toy_dataset(name, seed=1 + k, **changes) for k, name in enumerate(names)]


def test_the_start_has_learnt_something_and_says_of_what(start: Runs) -> None:
    theta = start(some(*NAMES), LEARNT)
    assert set(theta.facts["datasets"]) == set(NAMES)
    assert len(set(theta.facts["datasets"].values())) == 1  # they are put to the model the same way
    assert theta.facts["curve"][-1]["train_loss"] < 0.4
    assert theta.facts["flops"] == start.record["flops"] > 0
    assert theta.facts["rows"] == 4 * 3 * 24
    assert 0 < theta.facts["peak_memory_bytes"] <= start.record["peak_memory_bytes"]
    assert start.record["facts"] == {"theta": theta.digest, "made_from": theta.facts["datasets"]}
    assert start.record["reused"] is False


@pytest.mark.parametrize(("own", "setting"), [(1e38, "warm_start.learning_rate"), (None, "training.learning_rate")])
def test_the_learning_rate_at_fault_is_named(start: Runs, own: float | None, setting: str) -> None:
    settings = WarmStartConfig(samples_per_dataset=24, learning_rate=own)
    with pytest.raises(UserError, match=rf"(?s)training diverged.*-> lower {setting}$"):
        start(some("mood"), settings, training=TrainingConfig(learning_rate=1e38))


def test_it_is_pinned_while_the_recipe_is_the_same(start: Runs) -> None:
    theta = start(some(*NAMES))
    grown = some("mood", "tone", rows=(64, 16, 16)) + some("tune")
    assert start(grown) == theta
    assert start.record["reused"] is True
    assert start.record["flops"] == 0
    assert start(some("mood", "tone")) == theta  # a dataset left out


@pytest.mark.parametrize(
    "changes",
    [{"seed": 5}, {"training": TrainingConfig(learning_rate=1e-3)}, {"training": TrainingConfig(batch_size=4)}],
    ids=["seed", "learning rate", "batch size"],
)
def test_another_recipe_makes_another(start: Runs, changes: dict[str, Any]) -> None:
    theta = start(some("mood"))
    assert start(some("mood"), **changes).key != theta.key
    assert start(some("mood")) == theta


def test_one_new_dataset_of_four_that_is_understood_keeps_it(start: Runs) -> None:
    theta = start(some(*NAMES), LEARNT)
    assert start(some(*NAMES, "new"), LEARNT) == theta
    assert list(start.references) == ["logits/start/new/validation", "start"]
    assert start(some(*NAMES, "new"), LEARNT) == theta
    assert start.record["reused"] is True


def test_a_new_dataset_that_is_not_understood_renews_it(start: Runs, said: Callable[[], list[str]]) -> None:
    theta = start(some(*NAMES), LEARNT)
    odd = toy_dataset("odd", seed=9, flipped=True)
    anew = start([*some(*NAMES), odd], LEARNT)
    assert anew.digest != theta.digest
    assert set(anew.facts["datasets"]) == {*NAMES, "odd"}
    assert len(said()) == 1
    assert said()[0].startswith("theta* is made anew: odd is new and its loss there, ")
    assert list(start.references) == ["start"]  # the old start's logits are not the new one's


def test_more_than_a_third_new_renews_it(start: Runs, said: Callable[[], list[str]]) -> None:
    theta = start(some("mood", "tone"))
    anew = start(some("mood", "tone", "new", "newer"))
    assert anew.key != theta.key
    assert said() == ["theta* is made anew: 2 of 4 datasets are new"]
    assert start(some("mood", "tone", "new", "newer")) == anew  # from now on the newer one is pinned
    assert start(some("mood", "tone")) == anew


@pytest.mark.parametrize("changes", [{"template": "Text: " + TEMPLATE}, {"words": ("no", "yes")}], ids=str)
def test_another_rendering_renews_it(start: Runs, said: Callable[[], list[str]], changes: dict[str, Any]) -> None:
    theta = start(some("mood", "tone"))
    anew = start([*some("mood"), toy_dataset("tone", seed=2, **changes)])
    assert anew.key != theta.key
    assert said() == ["theta* is made anew: template or label words changed: tone"]


def test_it_is_renewed_where_asked(start: Runs) -> None:
    theta = start(some("mood", "tone", "tune"))
    asked = start(some("mood", "tone"), WarmStartConfig(epochs=0, renew=True))
    assert asked.key != theta.key
    assert set(asked.facts["datasets"]) == {"mood", "tone"}


def test_the_champions_goes_before_a_newer_one(start: Runs) -> None:
    learnt = WarmStartConfig(epochs=0.5, samples_per_dataset=16)
    first = start(some("mood", "tone"), learnt)
    second = start(some("mood", "tone", "tune"), learnt.model_copy(update={"renew": True}))
    assert second.digest != first.digest
    assert start(some("mood", "tone"), learnt) == second
    assert start(some("mood", "tone"), learnt, champion=first.digest) == first


def test_where_one_does_not_serve_an_older_may(start: Runs, said: Callable[[], list[str]]) -> None:
    old, new = some("mood", "tone"), some("mood", template="Text: " + TEMPLATE)
    theta = start(old)
    other = start(new)
    assert other.key != theta.key
    count = len(said())
    assert start(old) == theta
    assert len(said()) == count  # nothing is made anew


def test_a_raw_start_changes_nothing(start: Runs) -> None:
    theta = start(some("mood"))
    assert theta.facts["flops"] == 0
    assert not {"curve", "rows", "peak_memory_bytes"} & set(theta.facts)  # it measured nothing
    assert start.record["flops"] == 0
