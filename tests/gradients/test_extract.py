"""The step `extract`: killed and started again, and on datasets that changed since it ran last."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from components import events
from components.artifacts import find
from components.config import GradientsConfig, ModelConfig, WarmStartConfig
from components.events import VARIABLE
from components.flops import pass_cost
from components.gradients import shards as module
from components.gradients.extract import run
from components.gradients.projection import Projection
from components.gradients.shards import shards
from components.gradients.warm_start import run as warm_start
from components.language_model import attach_adapter, load_base
from components.object_store import LocalStore
from components.prepared import PreparedDataset, Split
from components.step import Step, read_records, read_references
from components.tables import Features, read_features
from tests.conftest import adapted, plain, random_examples
from tests.tiny_ensemble import write_base
from tests.tiny_training import LORA, TEMPLATE, publish_datasets, tiny_config, toy_dataset

ROOT = Path(__file__).parents[2]
# Six rows a batch and one batch a shard; dies by SIGKILL when it wants to put away one more shard than it may.
KILLED = """
import os, signal, sys
from pathlib import Path
from components.gradients import shards
from components.gradients.extract import run
config, folder, left = Path(sys.argv[1]).read_text(), Path(sys.argv[2]), int(sys.argv[3])
shards.BATCHES_A_SHARD, put = 1, shards.put
def limited(*arguments, **named):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return put(*arguments, **named)
shards.put = limited
run(config, "killed", folder / "datasets", folder / "start", '["mood"]', folder / "features")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


def prepared(model: ModelConfig, folder: Path) -> str:
    """A store with one dataset and theta*; the run's config as JSON."""
    sections = {"warm_start": WarmStartConfig(epochs=0), "gradients": GradientsConfig(dim=16, batch_tokens=64)}
    config = tiny_config(model, folder / "store", **sections).model_dump_json()
    publish_datasets(LocalStore(folder / "store"), [toy_dataset("mood")], folder / "datasets")
    warm_start(config, "first", '{"champion": {}}', folder / "datasets", folder / "start")
    return config


def extracted(config: str, folder: Path) -> dict[str, bytes]:
    """The bytes of the features after a run to the end."""
    run(config, "last", folder / "datasets", folder / "start", '["mood"]', folder / "features")
    with Step("reader", config, "reader") as step:
        artifact = step.load(read_references(folder / "features"), "features/mood")
    return {path.name: path.read_bytes() for path in artifact.folder.glob("*.safetensors")}


def test_killed_and_started_again_it_goes_on_to_the_same_bytes(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 1)
    whole = extracted(prepared(model, tmp_path / "whole"), tmp_path / "whole")
    folder = tmp_path / "killed"
    config = prepared(model, folder)
    (folder / "config.json").write_text(config)
    command = [sys.executable, "-c", KILLED, str(folder / "config.json"), str(folder), "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = LocalStore(folder / "store")
    left = [key for key in store.keys("checkpoints/") if key.endswith("/manifest.json")]
    assert len(left) == 3
    assert not list(store.keys("features/"))
    taken: list[int] = []
    put = module.put
    monkeypatch.setattr(module, "put", lambda *a, **named: taken.append(1) or put(*a, **named))
    assert extracted(config, folder) == whole
    rows = 32 + 16
    assert 0 < len(taken) < rows and whole.keys() == {"train.safetensors", "validation.safetensors", "rows.safetensors"}
    assert not list(store.keys("checkpoints/"))
    record = next(r for r in read_records(store, "last") if r["step"] == "extract")
    assert record["artifacts"]["features/mood"]["fresh"]


def test_what_was_cut_is_known_also_where_features_are_reused(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = model.model_copy(update={"max_length": 8})
    config = prepared(short, tmp_path)
    dataset, tokenizer = toy_dataset("mood"), AutoTokenizer.from_pretrained(model.id)
    expected = {}
    for split, part in dataset.splits.items():
        prompts = [dataset.template.format(text=text) for text in part.fields["text"]]
        if count := sum(len(tokenizer(prompt).input_ids) > 8 for prompt in prompts):
            expected[split] = count
    assert expected
    for number in (1, 2):
        monkeypatch.setenv(VARIABLE, str(tmp_path / f"events-{number}"))
        extracted(config, tmp_path)
        told = [json.loads(line) for line in (tmp_path / f"events-{number}").read_text().splitlines()]
        counts = ", ".join(f"{count} of {split}" for split, count in expected.items())
        said = f"mood: texts longer than model.max_length were cut ({counts})"
        assert said in [event["text"] for event in told if event["event"] == "said"]
    store = LocalStore(tmp_path / "store")
    record = next(r for r in read_records(store, "last") if r["step"] == "extract")
    assert record["reused"]
    found = find(store, record["artifacts"]["features/mood"]["key"])
    assert found is not None and found.facts["truncated"] == expected


def advances(file: Path) -> list[tuple[int, int, str]]:
    told = [json.loads(line) for line in file.read_text().splitlines()]
    return [(event["done"], event["total"], event["note"]) for event in told if event["event"] == "advanced"]


def test_progress_moves_with_the_rows(model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SECONDS_BETWEEN_EVENTS", 0)
    config = prepared(model, tmp_path)
    for number in (1, 2):
        monkeypatch.setenv(VARIABLE, str(tmp_path / f"events-{number}"))
        extracted(config, tmp_path)
    first, again = advances(tmp_path / "events-1"), advances(tmp_path / "events-2")
    taken, logits = 32 + 16, 32 + 16 + 16 + 16  # training and validation; both again, then test twice
    assert {total for _, total, _ in first + again} == {taken + logits}
    done = [done for done, _, _ in first]
    assert done == sorted(done) and (done[0], done[-1]) == (0, taken + logits)
    features = [done for done, _, note in first if note == "mood"]
    assert len(features) > 48 / 6 and features[-1] == taken  # a few rows a batch
    assert {note for _, _, note in first} == {"mood", "mood: logits", ""}
    stretches = [0, 48, 48 + 32, 48 + 32 + 16, 48 + 32 + 16 + 16, taken + logits]
    assert sorted({done for done, _, _ in again}) == stretches, "what is known is passed in leaps"


def test_shards_that_are_there_are_progress_too(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 1)
    base, peft = adapted(plain(llama_folder))
    examples, passed = random_examples([9, 14, 5, 20, 7]), list[int]()
    config = tiny_config(plain(llama_folder), tmp_path).model_dump_json()
    with Step("extract", config, "run") as step:
        settings = (step, "checkpoints/job", peft, base, examples, Projection(8, 0, "count_sketch", base.device), 20)
        once = module.sharded_gradients(*settings, passed=passed.append)
        counts = passed.copy()
        again = module.sharded_gradients(*settings, passed=passed.append)
    assert sum(counts) == len(examples) and passed == counts * 2
    assert (once.features == again.features).all()


def test_another_run_may_finish_and_clear_the_shards_away(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 1)
    base, peft = adapted(plain(llama_folder))
    examples = random_examples([9, 14, 5, 20, 7])
    with Step("extract", tiny_config(plain(llama_folder), tmp_path).model_dump_json(), "run") as step:

        def clear(_: int) -> None:
            for key in list(step.store.keys("checkpoints/job/")):
                step.store.delete(key)

        settings = (step, "checkpoints/job", peft, base, examples, Projection(8, 0, "count_sketch", base.device), 20)
        alone = module.sharded_gradients(*settings, passed=lambda _: None)
        [*_, rows] = [key for key in step.store.keys("checkpoints/job/") if key.endswith("rows.safetensors")]
        step.store.delete(rows)  # its manifest goes this moment
        beside = module.sharded_gradients(*settings, passed=clear)
    assert (alone.features == beside.features).all() and (alone.margin == beside.margin).all()


def test_shards_are_whole_batches_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHES_A_SHARD", 3)
    examples = random_examples(list(range(1, 60)))
    found = shards(examples, 64)
    assert len(found) > 3
    assert sorted(i for part in found for i in part.tolist()) == list(range(59))
    lengths = [len(examples.ids[i]) for part in found for i in part]
    assert lengths == sorted(lengths, reverse=True)


def taken(config: str, folder: Path, dataset: PreparedDataset) -> tuple[dict[str, Features], dict[str, Any], int]:
    """The features of a dataset as it is now: tables, facts, and the FLOPs that the step says it spent."""
    store = LocalStore(folder / "store")
    publish_datasets(store, [dataset], folder / "datasets")
    run(config, "now", folder / "datasets", folder / "start", '["mood"]', folder / "features")
    with Step("reader", config, "reader") as step:
        artifact = step.load(read_references(folder / "features"), "features/mood")
    (record,) = [record for record in read_records(store, "now") if record["step"] == "extract"]
    tables = {split: read_features(artifact.folder, split) for split in ("train", "validation")}
    return tables, artifact.facts, record["flops"]


def flops_by_formula(model: ModelConfig, texts: list[str]) -> int:
    """What the gradients of these texts take, by the formula for whole batches."""
    base = load_base(model)
    lengths = [len(base.tokenizer(TEMPLATE.format(text=text)).input_ids) for text in texts]
    return pass_cost(base, attach_adapter(base, LORA, seed=0)).gradients(sum(lengths), sum(n**2 for n in lengths))


def with_rows(dataset: PreparedDataset, more: Split) -> PreparedDataset:
    """The dataset with more training rows; rows stand by ascending id, so they come between the others."""
    old = dataset.splits["train"]
    row, label = np.concatenate([old.row, more.row]), np.concatenate([old.label, more.label])
    order = np.argsort(row)
    texts = old.fields["text"] + more.fields["text"]
    train = Split(row[order], {"text": [texts[i] for i in order]}, label[order], None)
    return replace(dataset, splits={**dataset.splits, "train": train})


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_new_rows_cost_new_rows_only(model: ModelConfig, tmp_path: Path, dtype: str, close: float) -> None:
    model = model.model_copy(update={"dtype": dtype})
    config, first = prepared(model, tmp_path), toy_dataset("mood")
    before, facts, full_cost = taken(config, tmp_path, first)
    assert (facts["rows"], facts["computed"], facts["flops"], facts["flops_computed"]) == (48, 48, full_cost, full_cost)
    more = toy_dataset("mood", rows=(8, 2, 2), seed=1).splits["train"]
    grown = with_rows(first, more)
    after, facts, cost = taken(config, tmp_path, grown)
    assert (facts["rows"], facts["computed"], facts["flops_computed"]) == (56, 8, cost)
    assert 0 < cost < 0.3 * full_cost
    assert facts["flops"] == full_cost + cost  # what all rows took, in two runs
    old = np.isin(after["train"].row, before["train"].row)
    assert (after["train"].features[old] == before["train"].features).all()
    assert (after["validation"].features == before["validation"].features).all()

    anew = prepared(model, tmp_path / "anew")
    whole, facts, at_once = taken(anew, tmp_path / "anew", grown)
    assert facts["computed"] == 56
    assert facts["flops"] == facts["flops_computed"] == at_once == full_cost + cost
    for split, table in whole.items():  # put together from two runs: the same but for the dtype's last bits
        assert (table.row == after[split].row).all()
        scale = np.abs(table.features).max()
        np.testing.assert_allclose(after[split].features, table.features, rtol=0, atol=close * scale)
        np.testing.assert_allclose(after[split].margin, table.margin, rtol=0, atol=close)


def test_rows_that_went_cost_nothing_and_another_label_is_another_row(model: ModelConfig, tmp_path: Path) -> None:
    config, first = prepared(model, tmp_path), toy_dataset("mood")
    before, full, _ = taken(config, tmp_path, first)
    train = first.splits["train"]
    fewer = Split(train.row[4:], {"text": train.fields["text"][4:]}, train.label[4:], None)
    after, facts, cost = taken(config, tmp_path, replace(first, splits={**first.splits, "train": fewer}))
    assert (facts["rows"], facts["computed"], facts["flops_computed"], cost) == (44, 0, 0, 0)
    gone = full["flops"] - facts["flops"]
    assert gone == flops_by_formula(model, train.fields["text"][:4])
    assert (after["train"].features == before["train"].features[4:]).all()

    label = train.label.copy()
    label[:3] = 1 - label[:3]
    turned = Split(train.row, train.fields, label, None)
    after, facts, _ = taken(config, tmp_path, replace(first, splits={**first.splits, "train": turned}))
    assert facts["computed"] == 3
    # Two labels: the margin of the one is minus the margin of the other, and so are their gradients.
    np.testing.assert_allclose(after["train"].features[:3], -before["train"].features[:3], rtol=0, atol=1e-5)
    assert (after["train"].features[3:] == before["train"].features[3:]).all()


def test_other_label_words_make_other_rows(model: ModelConfig, tmp_path: Path) -> None:
    config = prepared(model, tmp_path)
    taken(config, tmp_path, toy_dataset("mood"))
    _, facts, _ = taken(config, tmp_path, toy_dataset("mood", words=("dark", "light")))
    assert facts["computed"] == 48
