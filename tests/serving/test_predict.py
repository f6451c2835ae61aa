"""Exact prediction against the formula, written out adapter by adapter with the model's own forward pass."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.errors import UserError
from components.serving.description import coefficients
from components.serving.predict import EnsemblePredictor, Request
from tests.tiny_ensemble import ADAPTERS, LABELS, TEMPLATES, write_base, write_ensemble

FIELDS = {
    "mood": {"text": ["so glad", "what a day", "", "naïve ☂ " * 4]},
    "pair": {"text": ["a cat", "rain"], "text_pair": ["an animal", "sun"]},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    write_ensemble(folder, model)
    return folder


@pytest.fixture(scope="module")
def predictor(folder, model):
    return EnsemblePredictor.load(folder, model)


@pytest.fixture
def description(folder):
    return json.loads((folder / "ensemble.json").read_text())


def slow_logits(folder, model, description, dataset, fields, adapter):
    """One row at a time, whole vocabulary, no shared code."""
    tokenizer = AutoTokenizer.from_pretrained(model.id)
    tokens = description["datasets"][dataset]["label_token_ids"]
    rows = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
    base = AutoModelForCausalLM.from_pretrained(model.id, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "adapters" / adapter).eval()
    with torch.inference_mode():
        prompts = [tokenizer(TEMPLATES[dataset].format(**row), return_tensors="pt")["input_ids"] for row in rows]
        return np.array([adapted(input_ids=ids).logits[0, -1, tokens].tolist() for ids in prompts])


def slow_probabilities(folder, model, description, dataset, fields):
    """The formula, one adapter at a time."""
    z = {name: slow_logits(folder, model, description, dataset, fields, name) for name in ADAPTERS}
    w = description["weights"][dataset]
    boosted = z["group-0"] + 0.5 * (z["group-0-booster-0"] - z["start"])
    total = z["start"] + w[0] * (boosted - z["start"]) + w[1] * (z["group-1"] - z["start"])
    total += w[2] * (z["multitask"] - z["start"])
    powers = np.exp((total - total.max(axis=1, keepdims=True)) / description["temperatures"][dataset])
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dataset", ["mood", "pair"])
def test_equals_the_formula(folder, model, predictor, description, dataset):
    expected = slow_probabilities(folder, model, description, dataset, FIELDS[dataset])
    found = predictor.predict(dataset, FIELDS[dataset])
    assert found.shape == (len(FIELDS[dataset]["text"]), len(LABELS[dataset])) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 0.01, "the rows differ, or the comparison says little"


def test_rows_of_several_datasets_share_batches(predictor):
    alone = [predictor.predict(name, fields) for name, fields in FIELDS.items()]
    requests = [Request(name, fields) for name, fields in FIELDS.items()]
    for tokens in (1, 64, 8192):
        together = predictor.predict_many(requests, batch_tokens=tokens)
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_merged_adapter_answers_where_it_may(folder, model, description, tmp_path):
    loaded = EnsemblePredictor.load(folder, model)
    assert loaded.plan("mood", "merged") == {"merged-mood": 1.0}
    assert loaded.plan("mood") == coefficients(description, "mood"), "it is not the default"
    assert loaded.plan("pair", "merged") == {"group-1": 1.0}, "a single adapter needs no merging"
    merged = loaded.predict("mood", FIELDS["mood"], "merged")
    plain = slow_logits(folder, model, description, "mood", FIELDS["mood"], "merged-mood")
    np.testing.assert_allclose(merged, softmax(plain / 1.5, axis=1), atol=2e-5)
    assert np.abs(merged - loaded.predict("mood", FIELDS["mood"], "exact")).max() > 0.01
    shutil.copytree(folder, tmp_path / "allowed")
    description["merged"]["mood"]["default"] = True
    (tmp_path / "allowed" / "ensemble.json").write_text(json.dumps(description))
    default = EnsemblePredictor.load(tmp_path / "allowed", model)
    np.testing.assert_allclose(default.predict("mood", FIELDS["mood"]), merged, atol=1e-6)


def test_adapters_that_the_default_does_not_need_wait(folder, model):
    loaded = EnsemblePredictor.load(folder, model)
    assert "merged-mood" not in loaded._model.peft_config
    loaded.predict("mood", FIELDS["mood"], "merged")
    assert "merged-mood" in loaded._model.peft_config


def test_only_adapters_that_count_are_run(description):
    assert coefficients(description, "pair") == {"group-1": 1.0}
    mood = coefficients(description, "mood")
    assert mood == pytest.approx(
        {"group-0": 0.5, "group-0-booster-0": 0.25, "group-1": 0.2, "multitask": 0.3, "start": -0.25}
    )
    description["weights"]["pair"] = [0.0, 0.4, 0.0]
    assert coefficients(description, "pair") == pytest.approx({"group-1": 0.4, "start": 0.6})
    description["weights"]["pair"] = [0.1] * 10
    description["members"] = [{"name": f"g{i}", "boosters": []} for i in range(10)]
    assert "start" not in coefficients(description, "pair"), "ten tenths are one only up to rounding"


def test_rows_do_not_depend_on_their_company(predictor):
    together = predictor.predict("mood", FIELDS["mood"])
    alone = [predictor.predict("mood", {"text": [text]})[0] for text in FIELDS["mood"]["text"]]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert predictor.predict("mood", {"text": []}).shape == (0, 2)


def test_threads_do_not_switch_each_others_adapter(predictor):
    expected = {name: predictor.predict(name, fields) for name, fields in FIELDS.items()}
    names = ["mood", "pair"] * 6
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: predictor.predict(name, FIELDS[name]), names))
    for name, probabilities in zip(names, found, strict=True):
        np.testing.assert_allclose(probabilities, expected[name], atol=1e-6)


def test_another_base_model_is_refused(folder, model, description, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model.id, copy)
    elsewhere = model.model_copy(update={"id": str(copy)})
    assert EnsemblePredictor.load(folder, elsewhere).labels("mood") == LABELS["mood"]
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(UserError, match="not the one the adapters were trained on") as raised:
        EnsemblePredictor.load(folder, elsewhere)
    assert model.id in raised.value.remedy


@pytest.mark.parametrize(
    ("dataset", "fields", "message"),
    [
        ("weather", {"text": ["x"]}, r"no dataset 'weather'[\s\S]*mood, pair, story"),
        ("story", {"prompt": ["x"]}, r"story is a completion dataset[\s\S]*exported adapter"),
        ("pair", {"text": ["x"]}, "needs the fields text, text_pair; not given: text_pair"),
        ("mood", {"text": ["x", None]}, r"row 1: text is NoneType, not text"),
        ("mood", {"text": ["x", "\ud800"]}, r"row 1: text is not valid UTF-8"),
        ("pair", {"text": ["x", "y"], "text_pair": ["z"]}, "different numbers of rows\n-> give each field all rows"),
    ],
)
def test_what_cannot_be_predicted_is_explained(predictor, dataset, fields, message):
    with pytest.raises(UserError, match=message):
        predictor.predict(dataset, fields)
