"""Exact and merged prediction against plain single-adapter passes, on the demo's base model.

    python -m benchmarks.serving.latency [--model FOLDER] [--rank 8] [--adapters 4]

Adapters are random: what they say does not change what they cost. Both sides of a ratio are the same process, in turns.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, alternate
from components.config import LoraConfig, ModelConfig
from components.examples import Examples
from components.language_model import attach_adapter, example_logits, load_adapters, load_base, save_adapter
from components.serving.merge import Part, merge
from components.serving.mixed import Item, adapter_logits

BASE = Path(__file__).parents[2] / "pipelines" / "demo" / "base_model"
REPEATS = 15


def rows(model: Path = BASE, rank: int = 8, adapters: int = 4) -> list[Row]:
    """The measured rows."""
    torch.set_num_threads(2)
    base = load_base(ModelConfig(id=str(model), quantization="none", dtype="float32", device="cpu"))
    names = [f"adapter-{i}" for i in range(adapters)]
    with _folders(base, names, rank) as folders:
        merge([Part(folders[name], 1 / adapters) for name in names], rank, folders["merged"])
        adapted = load_adapters(base, folders)
        measured = []
        for count, length, bound in ((1, 40, "overhead"), (4, 40, "overhead"), (64, 120, "compute")):
            examples = _examples(count, length, len(base.tokenizer))
            measured += _compared(adapted, base, examples, names, bound)
        weights = sum((path / "adapter_model.safetensors").stat().st_size for path in folders.values())
    held = sum(weight.numel() * weight.element_size() for weight in base.model.parameters())
    measured.append(
        Row(
            f"bytes of {adapters} adapters and their merged one, beside the base's",
            weights, held, weights / held, None, unit="bytes",
        )
    )  # fmt: skip
    return measured


def _compared(adapted, base, examples, names, bound) -> list[Row]:  # type: ignore[no-untyped-def]
    def single(adapter: str) -> None:
        adapted.set_adapter(adapter)
        example_logits(adapted, base, examples)

    def mixed(chosen: list[str]) -> None:
        adapter_logits(adapted, base, [Item(examples, row, name) for name in chosen for row in range(len(examples))])

    def one_by_one() -> None:
        for name in names:
            single(name)

    count = len(examples)
    merged, plain = alternate(lambda: mixed(["merged"]), lambda: single(names[0]), repeats=REPEATS)
    exact, passes = alternate(lambda: mixed(names), one_by_one, repeats=REPEATS)
    target = 0.7 if bound == "overhead" else 1.05
    return [
        Row(f"merged, {count} rows, against one plain adapter", merged, plain, merged / plain, 1.05),
        Row(f"exact, {len(names)} adapters, {count} rows, against a pass each", exact, passes, exact / passes, target),
    ]


@contextmanager
def _folders(base, names: list[str], rank: int) -> Iterator[dict[str, Path]]:  # type: ignore[no-untyped-def]
    """PEFT folders of random adapters, and the place for a merged one."""
    with tempfile.TemporaryDirectory(prefix="loraloom-bench-") as temporary:
        folders = {name: Path(temporary) / name for name in [*names, "merged"]}
        for seed, name in enumerate(names):
            model = attach_adapter(base, LoraConfig(rank=rank, alpha=2 * rank), seed)
            random = torch.Generator().manual_seed(seed)
            for key, weight in model.named_parameters():
                if ".lora_B." in key:
                    weight.data.copy_(0.01 * torch.randn(weight.shape, generator=random))
            save_adapter(model, folders[name], base)
            model.unload()
        yield folders


def _examples(count: int, length: int, vocabulary: int) -> Examples:
    random = np.random.default_rng(0)
    ids = [random.integers(3, vocabulary, length).tolist() for _ in range(count)]
    zeros = np.zeros(count, np.int64)
    return Examples(zeros, ids, zeros, [10, 20, 30])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--adapters", type=int, default=4)
    table = Table("what", "ours", "against", "ratio", "target", "ok")
    for row in rows(**vars(parser.parse_args())):
        told = [f"{value:.4g}" for value in (row.value, row.baseline or 0, row.ratio)]
        table.add_row(row.name, *told, "" if row.target is None else f"{row.bound} {row.target}", str(row.ok))
    Console().print(table)
