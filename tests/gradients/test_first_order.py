"""The first-order model along a step: derivatives, distances, and errors that shrink as they must."""

import numpy as np
import pytest
import torch
from peft import PeftModel

from components.config import ModelConfig
from components.examples import collate
from components.gradients.embeddings import mean_embedding
from components.gradients.first_order import Ruler, derivatives, errors, moved, moved_margins
from components.language_model import Base, answer_logits, margins
from components.weighted_step import weighted_gradients
from tests.conftest import LORA, adapted, random_examples

SCALING = LORA.alpha / LORA.rank


@pytest.fixture
def moving(model_config: ModelConfig) -> tuple[PeftModel, Base, dict[str, torch.Tensor]]:
    """A model, and a step made of a few rows' gradients."""
    base, model = adapted(model_config)
    rows = random_examples([5, 9, 7, 6])
    return model, base, weighted_gradients(model, base, [rows], [np.array([0.3, -0.1, 0.2, 0.1])], 64)


def test_derivatives_are_inner_products_with_each_rows_gradient(moving) -> None:
    model, base, step = moving
    rows = random_examples([4, 8, 6], seed=1)
    margin, slope = derivatives(model, base, rows, step, batch_tokens=16)
    for i in range(len(rows)):
        model.zero_grad()
        batch = collate([(rows, i)])
        h = margins(answer_logits(model, batch), batch.label)[0]
        h.backward()
        inner = sum(float((p.grad * step[name]).sum()) for name, p in model.named_parameters() if name in step)
        assert margin[i] == pytest.approx(h.item(), abs=1e-4)
        assert slope[i] == pytest.approx(inner, rel=1e-3, abs=1e-5)


def test_the_error_grows_with_the_square_of_the_distance(moving) -> None:
    model, base, step = moving
    rows = random_examples([4, 8, 6, 11, 5], seed=2)
    before, slope = derivatives(model, base, rows, step, batch_tokens=64)
    ruler = Ruler(model, base, step, SCALING)
    off = []
    for distance in (0.0005, 0.001):
        times = ruler.times(distance)
        assert ruler.distance(times) == pytest.approx(distance, rel=1e-4)
        with moved(model, step, times):
            actual = moved_margins(model, base, [rows.take([0, 1]), rows.take([2, 3, 4])], 64)
        off.append(np.abs(before + times * slope - actual).mean())
        assert np.abs(actual - before).max() > 10 * np.abs(before + times * slope - actual).max()
    assert 3 < off[1] / off[0] < 5


def test_the_adapter_is_exactly_where_it_was(moving) -> None:
    model, _, step = moving
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    with moved(model, step, 3.0):
        assert any(not torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for name, p in model.named_parameters() if ".lora_" in name)


def test_distance_is_that_of_the_weight_change(moving) -> None:
    model, base, step = moving
    before = {name: layer.get_delta_weight("default").detach() for name, layer in layers(model).items()}
    norm = sum(float(p.double().square().sum()) for n, p in base.model.named_parameters() if ".lora_" not in n) ** 0.5
    with moved(model, step, 2.0):
        after = {name: layer.get_delta_weight("default").detach() for name, layer in layers(model).items()}
    change = sum(float((after[name] - before[name]).double().square().sum()) for name in before) ** 0.5
    assert Ruler(model, base, step, SCALING).distance(2.0) == pytest.approx(change / norm, rel=1e-4)


def layers(model: PeftModel) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}


def test_errors_by_hand() -> None:
    found = errors(np.array([1.1, 2.0]), np.array([1.0, 2.0]), np.array([0.5, 1.5]))
    assert found.relative == pytest.approx(0.1 / 5**0.5)
    assert found.squared == pytest.approx(0.01 / 5)
    assert found.of_change == pytest.approx(0.1 / (2 * 0.25) ** 0.5)


def test_embeddings_are_the_bare_bases(model_config: ModelConfig) -> None:
    base, model = adapted(model_config)
    rows = random_examples([3, 6])
    with torch.inference_mode(), model.disable_adapter():
        each = [
            model.get_base_model().base_model(torch.tensor([ids])).last_hidden_state[0, -1].numpy() for ids in rows.ids
        ]
    np.testing.assert_allclose(mean_embedding(model, base, rows), np.mean(each, axis=0), rtol=1e-4, atol=1e-5)
