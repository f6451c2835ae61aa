"""How far an adapter is from theta*, as published: the weight change it makes by the norm of the base's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from components.adapter_files import WEIGHTS
from components.language_model import Base


def relative_distance(adapter: Path, start: Path, base: Base) -> float:
    """``|| s (B A - B* A*) ||_F / || W ||_F`` over all adapted layers, W the whole base model.

    Args:
        adapter, start: PEFT folders of the same shape.
    """
    change = change_norm(load_file(adapter / WEIGHTS), load_file(start / WEIGHTS), _scaling(adapter))
    return change / base_norm(base)


def change_norm(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], scaling: float) -> float:
    """``|| s (B A - B* A*) ||_F`` over all adapted layers, from tensors named as PEFT names them."""
    change = 0.0
    for name, b in ours.items():
        if ".lora_B." in name:
            pair = name.replace("lora_B", "lora_A")
            # B A - B* A* is a product of two thin matrices: its norm needs no matrix of the layer's size.
            left = torch.cat([b, -theirs[name]], dim=1).double()
            right = torch.cat([ours[pair], theirs[pair]], dim=0).double()
            change += float(((left.T @ left) * (right @ right.T)).sum()) * scaling**2
    return float(max(change, 0.0) ** 0.5)


def _scaling(folder: Path) -> float:
    from peft import LoraConfig

    settings = LoraConfig.from_pretrained(str(folder))
    return float(settings.lora_alpha / settings.r)


def base_norm(base: Base) -> float:
    """Frobenius norm of the base's weights, dequantized where they are packed; tied ones count once, adapters never."""
    total = 0.0
    for name, parameter in base.model.named_parameters():
        if ".lora_" in name:  # PEFT puts its layers into the base itself
            continue
        weight: Any = parameter
        if hasattr(weight, "quant_state"):
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(weight.data, weight.quant_state)
        total += float(weight.detach().double().square().sum())
    return total**0.5
