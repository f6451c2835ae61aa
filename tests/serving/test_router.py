"""The router on features it can and cannot tell apart, and its features against one text at a time."""

import numpy as np
import pytest
import torch

from components.language_model import load_base
from components.serving.router import Router, fit_router, joined, read_router, text_features, write_router
from tests.conftest import adapted, plain


def clusters(names, count=40, seed=0):
    random = np.random.default_rng(seed)
    centres = {name: 8 * random.normal(size=8) for name in names}
    return {name: (centre + random.normal(size=(count, 8))).astype(np.float32) for name, centre in centres.items()}


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_clusters_are_told_apart(names, tmp_path):
    rows = clusters(names, 80)
    router = fit_router({name: part[:40] for name, part in rows.items()}, seed=0)
    write_router(router, tmp_path)
    again = read_router(tmp_path, names)
    for name, part in rows.items():
        assert again.route(part[40:], names) == [name] * 40
    others = names[1:]
    assert set(again.route(rows[names[0]], others)) <= set(others), "a dataset that does not take the fields is out"


def test_sizes_do_not_decide():
    random = np.random.default_rng(1)
    same = {"big": random.normal(size=(400, 3)), "small": random.normal(size=(20, 3))}
    answers = fit_router(same, seed=0).route(random.normal(size=(500, 3)), ["big", "small"])
    assert 0.25 < answers.count("small") / 500 < 0.75


def test_features_are_means_over_real_tokens_of_the_bare_base(llama_folder):
    base, model = adapted(plain(llama_folder))
    texts = ["the film was good", "", "a very much longer text than the others about the village " * 3]
    found = text_features(base, texts, max_length=20)
    bare = load_base(plain(llama_folder))
    for text, feature in zip(texts, found, strict=True):
        ids = bare.tokenizer(text)["input_ids"][:20]
        with torch.inference_mode():
            hidden = bare.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(feature, hidden.mean(0), atol=2e-5)
    layer = next(module for name, module in model.named_modules() if name.endswith("q_proj"))
    assert not layer.disable_adapters, "the adapters speak again"


def test_fields_are_joined_in_the_order_of_their_names():
    assert joined({"text_pair": ["b", "d"], "text": ["a", "c"]}) == ["a\nb", "c\nd"]


def test_ties_go_to_the_first():
    router = Router(["a", "b"], np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
    assert router.route(np.ones((1, 3), np.float32), ["b", "a"]) == ["b"]
