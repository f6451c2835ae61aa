"""One plain LoRA adapter that stands for a weighted sum of several.

An ensemble adds up logits, ``sum_a c_a z_a``; to first order around theta* that is the model whose weight change is
``sum_a c_a s_a B_a A_a`` (s the LoRA scaling). The sum has the rank of all its parts together: their factors are laid
side by side, and a singular value decomposition keeps the largest directions. Merging is exact only for a single
adapter; how far the merged one is from the ensemble is measured, never assumed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from components.adapter_files import SETTINGS, WEIGHTS

A, B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Part:
    """An adapter's PEFT folder and what its weight change is multiplied with."""

    folder: Path
    coefficient: float


def merge(parts: Sequence[Part], rank: int, folder: Path) -> float:
    """Write the merged adapter as a plain PEFT folder of the given rank.

    Returns:
        The share of the summed weight change that the rank could not hold: squared Frobenius norms over all layers.
    """
    settings = [json.loads((part.folder / SETTINGS).read_text()) for part in parts]
    scales = [
        part.coefficient * one["lora_alpha"] / (one["r"] ** (0.5 if one.get("use_rslora") else 1.0))
        for part, one in zip(parts, settings, strict=True)
    ]
    tensors = [load_file(part.folder / WEIGHTS) for part in parts]
    names = sorted({name.removesuffix(A) for one in tensors for name in one if name.endswith(A)})
    out: dict[str, torch.Tensor] = {}
    lost = total = 0.0
    for name in names:
        held = [(scale, one) for scale, one in zip(scales, tensors, strict=True) if name + A in one]
        left = torch.cat([scale * one[name + B].double() for scale, one in held], dim=1)
        right = torch.cat([one[name + A].double() for _, one in held], dim=0)
        a, b, values = low_rank(left, right, rank)
        out[name + A], out[name + B] = a.float().contiguous(), b.float().contiguous()
        lost, total = lost + float(values[rank:].square().sum()), total + float(values.square().sum())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(out, folder / WEIGHTS, metadata={"format": "pt"})
    merged = settings[0] | {"r": rank, "lora_alpha": rank, "use_rslora": False, "lora_dropout": 0.0}
    (folder / SETTINGS).write_text(json.dumps(merged, indent=1, sort_keys=True))
    return lost / total if total else 0.0


def low_rank(left: torch.Tensor, right: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best approximation of ``left @ right`` of a rank (Eckart and Young 1936), without forming the product.

    Args:
        left: [p, R].
        right: [R, q].

    Returns:
        A [rank, q] and B [p, rank] with ``B @ A`` the approximation, singular values shared evenly between them, and
        all singular values [min(p, q, R)], descending. Directions beyond those are zero.
    """
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, values, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    root = values[:rank].sqrt()
    b, a = (q_left @ u[:, :rank]) * root, root[:, None] * (v[:rank] @ q_right.T)
    missing = rank - len(root)
    return torch.nn.functional.pad(a, (0, 0, 0, missing)), torch.nn.functional.pad(b, (0, missing)), values
