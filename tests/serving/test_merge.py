"""Merged adapters against the sum of dense weight changes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.serving.merge import Part, low_rank, merge

NAMES = ("base_model.model.layers.0.q", "base_model.model.layers.1.down")


def write_adapter(folder, seed, *, rank=4, alpha=8, names=NAMES):
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in names:
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, 24, generator=random)
        tensors[f"{name}.lora_B.weight"] = torch.randn(16, rank, generator=random)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha, "peft_type": "LORA"}))
    return folder


def change(folder, name):
    """The dense weight change of one layer, [16, 24]."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = settings["lora_alpha"] / settings["r"]
    return scale * tensors[f"{name}.lora_B.weight"].double() @ tensors[f"{name}.lora_A.weight"].double()


@pytest.fixture
def parts(tmp_path):
    first, second = write_adapter(tmp_path / "one", 0), write_adapter(tmp_path / "two", 1, rank=2, alpha=16)
    return [Part(first, 0.7), Part(second, -0.4)]


def test_with_enough_rank_nothing_is_lost(parts, tmp_path):
    assert merge(parts, 6, tmp_path / "merged") == pytest.approx(0, abs=1e-12)
    for name in NAMES:
        expected = 0.7 * change(parts[0].folder, name) - 0.4 * change(parts[1].folder, name)
        torch.testing.assert_close(change(tmp_path / "merged", name), expected, atol=1e-4, rtol=1e-5)


def test_with_less_rank_it_is_the_best_approximation(parts, tmp_path):
    lost = merge(parts, 3, tmp_path / "merged")
    missing = total = 0.0
    for name in NAMES:
        dense = 0.7 * change(parts[0].folder, name) - 0.4 * change(parts[1].folder, name)
        values = torch.linalg.svdvals(dense)
        error = (dense - change(tmp_path / "merged", name)).square().sum().item()
        assert error == pytest.approx(values[3:].square().sum().item(), rel=1e-5)
        missing, total = missing + error, total + dense.square().sum().item()
    assert lost == pytest.approx(missing / total, rel=1e-5)
    assert 0 < lost < 1


def test_more_rank_than_there_are_directions_is_filled_with_zeros(parts, tmp_path):
    merge(parts, 10, tmp_path / "merged")
    tensors = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert tensors[f"{NAMES[0]}.lora_A.weight"].shape == (10, 24)
    assert not tensors[f"{NAMES[0]}.lora_A.weight"][6:].any()
    settings = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (10, 10)


def test_a_layer_that_one_adapter_lacks(tmp_path):
    both, one = write_adapter(tmp_path / "both", 0), write_adapter(tmp_path / "one", 1, names=NAMES[:1])
    merge([Part(both, 1.0), Part(one, 1.0)], 8, tmp_path / "merged")
    torch.testing.assert_close(change(tmp_path / "merged", NAMES[1]), change(both, NAMES[1]), atol=1e-4, rtol=1e-5)


def test_singular_values_are_shared_evenly():
    left, right = torch.randn(16, 5, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)
    a, b, values = low_rank(left, right, 3)
    torch.testing.assert_close(b.square().sum(0), values[:3])
    torch.testing.assert_close(a.square().sum(1), values[:3])
