"""The studies' second model: made of the same texts, alike every time."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2LMHeadModel
from typer.testing import CliRunner

from benchmarks.truth.__main__ import app
from benchmarks.truth.second_model import HEADS, LAYERS, WIDTH, make
from benchmarks.truth.setting import REAL


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dataset's training rows, some with a second text."""
    folder = tmp_path_factory.mktemp("texts")
    for k, entry in enumerate(yaml.safe_load(REAL.read_text())["datasets"]):
        rows = [
            {"text": f"the film {k} was good " * 4, "label": "yes"},
            {"text": "bad", "text_pair": "film", "label": 1},
        ]
        (folder / entry["name"]).mkdir()
        (folder / entry["name"] / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_it_is_a_gpt2_and_the_same_every_time(texts: Path, llama_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(texts, llama_folder, tmp_path / name, steps=2)
    one, two = (GPT2LMHeadModel.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert (one.config.n_embd, one.config.n_layer, one.config.n_head) == (WIDTH, LAYERS, HEADS)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    make(texts, llama_folder, tmp_path / "more", steps=4)
    assert not torch.equal(one.lm_head.weight, GPT2LMHeadModel.from_pretrained(tmp_path / "more").lm_head.weight)


def test_a_folder_that_is_there_stays(texts: Path, llama_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    told = CliRunner().invoke(
        app, ["--data", str(texts), "--model", str(llama_folder), "second-model", str(tmp_path)], env={"COLUMNS": "300"}
    )
    assert told.exit_code == 2 and "exists; name another" in told.output
    assert (tmp_path / "kept").read_text() == "mine"
