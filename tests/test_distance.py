from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel

from components.config import ModelConfig
from components.distance import relative_distance
from components.language_model import Base, load_adapters, load_base, save_adapter
from tests.conftest import adapted, nf4, perturb, plain


def written(model: ModelConfig, folder: Path, *, moves: int) -> PeftModel:
    """Save the seeded adapter after so many random moves of A and B; returns the model it belongs to."""
    base, peft = adapted(model, perturbed=False)
    for seed in range(moves):
        perturb(peft, seed)
        for name, weight in peft.named_parameters():
            if ".lora_A." in name:
                weight.data.mul_(1.1)
    save_adapter(peft, folder, base)
    return peft


def weight_changes(model: PeftModel) -> dict[str, torch.Tensor]:
    """What the adapter adds to each layer's weight, as a full matrix, by PEFT's own account."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    return {name: layer.get_delta_weight("default").detach().double() for name, layer in layers.items()}


def dense_norm(base: Base) -> float:
    """Norm of everything the base's layers hold, as full matrices, each once: tied embeddings are one matrix."""
    total, seen = 0.0, set()
    for module in base.model.modules():
        for weight in (getattr(module, name, None) for name in ("weight", "bias")):
            if weight is None or id(weight) in seen:
                continue
            seen.add(id(weight))
            if isinstance(module, Linear4bit) and weight is module.weight:
                weight = dequantize_4bit(weight.data, weight.quant_state)
            total += float(weight.detach().double().square().sum())
    return total**0.5


@pytest.fixture(params=["llama", "gpt2", "llama-nf4", "gpt2-nf4"])
def any_model(request: pytest.FixtureRequest) -> ModelConfig:
    architecture, _, quantization = request.param.partition("-")
    if quantization:
        return nf4(request.getfixturevalue(f"wide_{architecture}_folder"))
    return plain(request.getfixturevalue(f"{architecture}_folder"))


def test_equals_the_dense_computation(any_model: ModelConfig, tmp_path: Path) -> None:
    start = weight_changes(written(any_model, tmp_path / "start", moves=1))
    ours = weight_changes(written(any_model, tmp_path / "ours", moves=3))
    base = load_base(any_model)
    change = sum(float((ours[name] - start[name]).square().sum()) for name in ours) ** 0.5
    expected = change / dense_norm(base)
    assert expected > 0.01
    assert relative_distance(tmp_path / "ours", tmp_path / "start", base) == pytest.approx(expected, rel=1e-5)


def test_adapters_on_the_base_are_not_part_of_it(any_model: ModelConfig, tmp_path: Path) -> None:
    written(any_model, tmp_path / "start", moves=1)
    written(any_model, tmp_path / "ours", moves=3)
    base = load_base(any_model)
    before = relative_distance(tmp_path / "ours", tmp_path / "start", base)
    load_adapters(base, {"default": tmp_path / "ours", "other": tmp_path / "start"})
    assert relative_distance(tmp_path / "ours", tmp_path / "start", base) == pytest.approx(before, rel=1e-12)


def test_no_move_no_distance(any_model: ModelConfig, tmp_path: Path) -> None:
    written(any_model, tmp_path / "start", moves=1)
    base = load_base(any_model)
    assert relative_distance(tmp_path / "start", tmp_path / "start", base) == pytest.approx(0.0, abs=1e-7)


def test_from_the_raw_start_it_is_the_adapters_own_norm(any_model: ModelConfig, tmp_path: Path) -> None:
    written(any_model, tmp_path / "raw", moves=0)
    ours = weight_changes(written(any_model, tmp_path / "ours", moves=1))
    base = load_base(any_model)
    expected = sum(float(change.square().sum()) for change in ours.values()) ** 0.5 / dense_norm(base)
    assert relative_distance(tmp_path / "ours", tmp_path / "raw", base) == pytest.approx(expected, rel=1e-5)
