"""The step `weigh`: which member a dataset's answers come from."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from components.config import EnsembleConfig, ModelConfig
from components.ensemble.weigh import run
from components.label_logits import logits_label
from components.step import Step, read_references, write_references
from components.tables import Logits, write_logits
from tests.tiny_training import tiny_config

GROUPS = [["film"], ["food"]]
ROWS, LABEL = np.arange(60), np.arange(60) % 2
RIGHT = np.where(LABEL[:, None] == np.arange(2), 2.0, 0.0).astype(np.float32)
RIGHT[:6] = RIGHT[:6, ::-1]  # not always, so that being very sure would cost something
BLIND = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
Members = dict[str, np.ndarray]


def weighed(folder: Path, members: Members, baselines: list[Literal["multitask", "per_dataset"]]) -> dict[str, Any]:
    """Facts of the weights, where every member answers both datasets alike."""
    store = folder / "store"
    config = tiny_config(ModelConfig(id="none"), store, ensemble=EnsembleConfig(baselines=baselines))
    text = config.model_dump_json()
    with Step("earlier", text, "run") as step:
        step.obtain("partition", "partition", {}, lambda _: {"groups": GROUPS})
        for name, logits in {"start": np.zeros_like(BLIND), **members}.items():
            for dataset in ("film", "food"):
                table = Logits(ROWS, logits, LABEL)
                step.obtain(
                    logits_label(name, dataset, "validation"),
                    "logits",
                    {"model": name, "dataset": dataset},
                    lambda made, table=table: write_logits(made, "logits", table) or {},
                )
        step.pass_on(folder / "earlier")
    write_references(folder / "datasets", {"film": "key", "food": "key"})
    earlier, out = folder / "earlier", folder / "out"
    run(text, "run", folder / "datasets", earlier, [earlier], [], [], out)
    with Step("look", text, "look") as step:
        return step.load(read_references(out), "weights").facts


def rows(facts: dict[str, Any]) -> list[list[float]]:
    return [facts["rows"][name]["weights"] for name in ("film", "food")]


def test_where_members_do_not_differ_the_multi_task_adapter_answers(tmp_path: Path) -> None:
    members = dict.fromkeys(("group-0", "group-1", "multitask"), RIGHT)
    facts = weighed(tmp_path, members, ["multitask"])
    assert facts["members"] == ["group-0", "group-1", "multitask"]
    assert rows(facts) == [[0, 0, 1], [0, 0, 1]]


def test_without_one_the_own_group_answers(tmp_path: Path) -> None:
    facts = weighed(tmp_path, dict.fromkeys(("group-0", "group-1"), RIGHT), [])
    assert facts["members"] == ["group-0", "group-1"]
    assert rows(facts) == [[1, 0], [0, 1]]


@pytest.mark.parametrize("best", ["group-0", "group-1", "multitask"])
def test_the_member_that_is_right_answers_whichever_it_is(tmp_path: Path, best: str) -> None:
    members = {name: RIGHT if name == best else BLIND for name in ("group-0", "group-1", "multitask")}
    facts = weighed(tmp_path, members, ["multitask"])
    for row in rows(facts):
        assert row[facts["members"].index(best)] > 0.9
