"""Exported folders, loaded with plain transformers and peft, against the ensemble's own answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.config import ModelConfig
from components.errors import UserError
from components.serving.export import export, merge_into_base
from components.serving.predict import EnsemblePredictor
from tests.tiny_ensemble import LABELS, TEMPLATES, write_base, write_ensemble

FIELDS = {"mood": {"text": "so glad"}, "pair": {"text": "a cat", "text_pair": "an animal"}}
RESULTS = {"mood": {"ensemble": {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9}}}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: ModelConfig) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    described = write_ensemble(folder, model)
    (folder / "ensemble.json").write_text(json.dumps(described | {"results": RESULTS}))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    target = tmp_path_factory.mktemp("exported")
    adapters = export(folder, target, "3")
    assert adapters == {name: target / "datasets" / name for name in ("mood", "pair", "story")}
    return target


def plain_answer(base: AutoModelForCausalLM, folder: Path, model: ModelConfig, dataset: str) -> np.ndarray:
    """Probabilities [C] by nothing of ours."""
    tokenizer = AutoTokenizer.from_pretrained(model.id)
    prompt = tokenizer(TEMPLATES[dataset].format(**FIELDS[dataset]), return_tensors="pt")
    described = json.loads((folder / "ensemble.json").read_text())
    tokens, temperature = described["datasets"][dataset]["label_token_ids"], described["temperatures"][dataset]
    with torch.inference_mode():
        return softmax(base(**prompt).logits[0, -1, tokens].double().numpy() / temperature)


@pytest.mark.parametrize("dataset", ["mood", "pair"])
def test_plain_peft_gives_the_same_answers(exported: Path, folder: Path, model: ModelConfig, dataset: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(model.id, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, exported / "datasets" / dataset).eval()
    ours = EnsemblePredictor.load(folder, model)
    fields = {name: [text] for name, text in FIELDS[dataset].items()}
    expected = ours.predict(dataset, fields, "merged")[0]
    np.testing.assert_allclose(plain_answer(adapted, folder, model, dataset), expected, atol=2e-5)


def test_every_adapter_of_the_ensemble_loads_with_plain_peft(exported: Path, model: ModelConfig) -> None:
    folders = sorted((exported / "ensemble" / "adapters").iterdir())
    names = ["group-0", "group-0-booster-0", "group-1", "merged-mood", "multitask", "start"]
    assert [path.name for path in folders] == names
    for path in folders:
        base = AutoModelForCausalLM.from_pretrained(model.id, dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, path)
        assert any(weight.abs().sum() > 0 for name, weight in loaded.named_parameters() if "lora_B" in name)


def test_merged_into_the_base_it_is_a_plain_model(folder: Path, model: ModelConfig, tmp_path: Path) -> None:
    merge_into_base(folder, "pair", tmp_path / "full")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype=torch.float32).eval()
    ours = EnsemblePredictor.load(folder, model)
    expected = ours.predict("pair", {name: [text] for name, text in FIELDS["pair"].items()})[0]
    np.testing.assert_allclose(plain_answer(whole, folder, model, "pair"), expected, atol=2e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "full")("so glad")["input_ids"]
    with pytest.raises(UserError, match="no dataset 'weather'"):
        merge_into_base(folder, "weather", tmp_path / "none")


def test_the_card_says_what_the_adapter_is(exported: Path, model: ModelConfig) -> None:
    text = (exported / "datasets" / "mood" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    header = yaml.safe_load(front)
    assert header["base_model"] == model.id and header["library_name"] == "peft" and header["license"] == "other"
    assert "25.0 % of 4 validation labels differ" in body
    assert "+0.500 group-0" in body and "+0.300 multitask" in body
    assert "| group-0 was trained on | mood, story |" in body
    assert "| multitask was trained on | mood, pair, story |" in body
    assert "| ensemble | 0.7500 [0.5000, 0.9000] |" in body
    for label in LABELS["mood"]:
        assert f"| {label} |" in body
    assert "Test results" not in (exported / "datasets" / "pair" / "README.md").read_text()


def test_the_card_of_a_dataset_without_a_merged_adapter_speaks_of_the_one_in_the_folder(exported: Path) -> None:
    card = (exported / "datasets" / "story" / "README.md").read_text()  # a boosted group, but no booster is here
    assert "| stands for | +1.000 group-0  |" in card and "multitask was trained on" not in card


def test_the_readme_has_the_command_for_vllm(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert "--max-lora-rank 8" in text
    assert "--lora-modules mood=datasets/mood pair=datasets/pair story=datasets/story" in text


def test_the_rank_is_one_that_vllm_takes(folder: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(folder, tmp_path / "odd")
    settings = odd / "adapters" / "group-1" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"r": 20}))
    export(odd, tmp_path / "out", "3")
    assert "--max-lora-rank 32" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_says_how_the_merged_adapter_did_on_the_test_rows(folder: Path, tmp_path: Path) -> None:
    answering = shutil.copytree(folder, tmp_path / "answering")
    described = json.loads((folder / "ensemble.json").read_text())
    described["merged"]["mood"]["test"] = {"rows": 8, "labels": 0.0, "kl": 0.0, "exact": 0.625, "merged": 0.5}
    (answering / "ensemble.json").write_text(json.dumps(described))
    export(answering, tmp_path / "out", "3")
    card = (tmp_path / "out" / "datasets" / "mood" / "README.md").read_text()
    assert "On the same rows this one has an accuracy of 0.5000, the ensemble 0.6250." in card


def test_nothing_is_overwritten(exported: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="is not empty"):
        export(folder, exported, "4")
