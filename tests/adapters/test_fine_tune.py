"""Trials of a subset: what is measured, and what is found again."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.adapters.fine_tune import run
from components.examples import tokenize
from components.language_model import example_logits, load_adapters, load_base
from components.step import read_records, read_references, write_references
from components.tables import row_losses
from components.trials import read_trials
from tests.adapter_task import NAMES, AdapterTask
from tests.conftest import plain

JOB = {"name": "subset-000", "datasets": NAMES, "seeds": [0, 1]}


def test_each_seed_is_a_trial_of_the_adapter_that_training_makes(llama_folder: Path, tmp_path: Path) -> None:
    work = AdapterTask(plain(llama_folder), tmp_path)
    write_references(tmp_path / "start", {"start": work.theta.key})
    config = work.config.model_dump_json()
    out = tmp_path / "trials"
    run(config, "run", tmp_path / "datasets", tmp_path / "start", json.dumps(JOB), out)
    real = read_trials(work.step, read_references(out), NAMES, {JOB["name"]: NAMES}, 2)
    assert real.members.tolist() == [[True, True]]
    assert np.abs(real.validation[0, 0] - real.validation[0, 1]).max() > 1e-4, "another order of batches"
    assert (real.flops > 0).all() and (real.distance > 0).all() and (real.seconds > 0).all()

    adapter = work.step.load(read_references(out), "adapter/subset-000.0")
    base = load_base(work.config.model)
    model = load_adapters(base, {"default": adapter.folder})
    for i, dataset in enumerate(work.prepared.datasets):
        for split, table in (("validation", real.validation), ("test", real.test)):
            examples = tokenize(dataset, split, base.tokenizer, 512)
            logits = example_logits(model, base, examples)
            assert table[0, 0, i] == pytest.approx(row_losses(logits, examples.label).mean(), abs=1e-5)
        assert real.accuracy[0, 0, i] == pytest.approx((logits.argmax(1) == examples.label).mean())

    run(config, "again", tmp_path / "datasets", tmp_path / "start", json.dumps(JOB), tmp_path / "again")
    (record,) = read_records(work.store, "again")
    assert record["reused"] and record["flops"] == 0
