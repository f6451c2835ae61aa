"""What an answer costs: merged and exact prediction against plain adapters, and what merging leaves out.

Adapters are random: what they say does not change what they cost. As trained ones do, they share a start, and each has
a change of its own. A side that is compared is warmed up, then they take turns.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from benchmarks.measure import Bound, Row, alternate
from benchmarks.setting import MODEL, base_model
from components.adapter_files import WEIGHTS
from components.config import LoraConfig, ModelConfig
from components.examples import Examples
from components.language_model import Base, attach_adapter, example_logits, load_adapters, load_base, save_adapter
from components.serving.merge import Part, merge
from components.serving.mixed import ENOUGH_TOKENS, Item, adapter_logits
from components.serving.servable import disagreement

RANK, COUNT = 8, 4
NAMES = [f"adapter-{i}" for i in range(COUNT)]
RANKS = {f"merged-{rank}": rank for rank in (RANK, 2 * RANK, 3 * RANK, COUNT * RANK)}
MERGED = f"merged-{RANK}"
ROW_TOKENS = 64
# Tokens of an adapter, and what mixed batches should then take of the time of separate ones; the crossing in between.
CROSSING: tuple[tuple[int, float | None, Bound], ...] = (
    (ENOUGH_TOKENS // 4, 1.0, "at most"),
    (ENOUGH_TOKENS, None, "at most"),
    (4 * ENOUGH_TOKENS, 1.0, "at least"),
)
SMALL, LARGE = 15, 9  # repeats: of a few milliseconds, of tenths of a second
# Rows of a request, their tokens, and what exact answers may take of a pass an adapter. The two small ones are bound by
# the overhead of a pass; four rows of 40 tokens already keep a CPU busy with arithmetic.
REQUESTS = ((1, 40, 0.7), (4, 10, 0.7), (4, 40, 1.05), (16, 100, 1.05))


def rows() -> list[Row]:
    """The measured rows."""
    base = base_model()
    with _folders(base) as folders:
        lost = {name: _merge(folders, rank, name) for name, rank in RANKS.items()}
        adapted = load_adapters(base, folders)
        plain_base = base_model()  # of its own: a model with one adapter has no other to choose from
        plain = load_adapters(plain_base, {NAMES[0]: folders[NAMES[0]]})
        measured = []
        for count, length, target in REQUESTS:
            examples = _examples(count, length, len(base.tokenizer))
            repeats = SMALL if count <= 4 else LARGE
            measured += _merged(adapted, base, plain, plain_base, examples, repeats)
            measured += _exact(adapted, base, examples, repeats, target)
        measured += _several_datasets(adapted, base)
        measured += _mixed_or_alone(adapted, base)
        measured += _svd(adapted, base, lost)
        measured += _memory({name: folders[name] for name in [*NAMES, MERGED]})
    return measured


def _merged(
    adapted: PeftModel, base: Base, plain: PeftModel, plain_base: Base, examples: Examples, repeats: int
) -> list[Row]:
    def ours() -> None:
        adapter_logits(adapted, base, _items(examples, [MERGED]))

    def one() -> None:
        example_logits(plain, plain_base, examples)

    name = f"merged at rank {RANK}, {_told(examples)}, against one plain adapter of that rank"
    return [_row(name, ours, one, repeats, 1.05)]


def _exact(adapted: PeftModel, base: Base, examples: Examples, repeats: int, target: float) -> list[Row]:
    def ours() -> None:
        adapter_logits(adapted, base, _items(examples, NAMES))

    def a_pass_each() -> None:
        for name in NAMES:
            adapted.set_adapter(name)
            example_logits(adapted, base, examples)

    name = f"exact with {COUNT} adapters, {_told(examples)}, against {COUNT} passes"
    return [_row(name, ours, a_pass_each, repeats, target)]


def _several_datasets(adapted: PeftModel, base: Base) -> list[Row]:
    """A request with a row for each of some datasets, every one under an adapter of its own and of its own length."""
    parts = [_examples(1, 25 + 10 * i, len(base.tokenizer)) for i in range(COUNT)]

    def ours() -> None:
        adapter_logits(adapted, base, [Item(part, 0, name) for part, name in zip(parts, NAMES, strict=True)])

    def a_pass_each() -> None:
        for part, name in zip(parts, NAMES, strict=True):
            adapted.set_adapter(name)
            example_logits(adapted, base, part)

    return [_row(f"a row of each of {COUNT} datasets in one batch, against a pass each", ours, a_pass_each, SMALL, 1.0)]


def _mixed_or_alone(adapted: PeftModel, base: Base) -> list[Row]:
    """Whether ENOUGH_TOKENS lies where it should: well below it one batch for all adapters, well above it one each."""
    measured = []
    for tokens, target, bound in CROSSING:
        items = _items(_examples(tokens // ROW_TOKENS, ROW_TOKENS, len(base.tokenizer)), NAMES)

        def together(items: list[Item] = items) -> None:
            adapter_logits(adapted, base, items, enough_tokens=math.inf)

        def alone(items: list[Item] = items) -> None:
            adapter_logits(adapted, base, items, enough_tokens=0)

        name = f"{COUNT} adapters of {tokens} tokens each in mixed batches, against batches of one adapter"
        measured.append(_row(name, together, alone, LARGE, target, bound))
    return measured


def _svd(adapted: PeftModel, base: Base, lost: dict[str, float]) -> list[Row]:
    """What the rank of a merged adapter leaves out, and what that does to the answers."""
    examples = _examples(64, 30, len(base.tokenizer))
    exact = sum(np.stack(adapter_logits(adapted, base, _items(examples, [name]))) / COUNT for name in NAMES)
    measured = []
    for name, rank in RANKS.items():
        merged = np.stack(adapter_logits(adapted, base, _items(examples, [name])))
        found = disagreement(np.asarray(exact), merged)
        note = f"{found['labels']:.1%} of the labels differ from exact ones, KL {found['kl']:.1e} nats"
        title = f"share of the change that rank {rank} leaves out, {COUNT} adapters of rank {RANK}"
        measured.append(Row(title, lost[name], None, lost[name], None, unit="", note=note))
    return measured


def _memory(folders: dict[str, Path]) -> list[Row]:
    """Bytes of weights: one 4-bit base with all adapters against one with one."""

    def held(chosen: dict[str, Path]) -> int:
        model = load_adapters(load_base(ModelConfig(id=MODEL, device="cpu")), chosen)
        return sum(one.numel() * one.element_size() for one in [*model.parameters(), *model.buffers()])

    one, all_of_them = held({NAMES[0]: folders[NAMES[0]]}), held(folders)
    further = all_of_them - one
    shipped = sum(path.stat().st_size for name, path in _weights(folders) if name != NAMES[0])
    name = f"bytes with {len(folders)} adapters, against one plain QLoRA model"
    return [
        Row(name, all_of_them, one, all_of_them / one, None, unit="bytes"),
        Row("bytes that the further adapters add, against their files", further, shipped, further / shipped, 1.05,
            unit="bytes"),
    ]  # fmt: skip


def _weights(folders: dict[str, Path]) -> list[tuple[str, Path]]:
    return [(name, folder / WEIGHTS) for name, folder in folders.items()]


def _row(
    name: str,
    ours: Callable[[], None],
    other: Callable[[], None],
    repeats: int,
    target: float | None,
    bound: Bound = "at most",
) -> Row:
    ours()
    other()
    value, baseline = alternate(ours, other, repeats=repeats)
    return Row(name, value, baseline, value / baseline, target, bound, note=f"medians of {repeats}")


def _items(examples: Examples, names: list[str]) -> list[Item]:
    return [Item(examples, row, name) for name in names for row in range(len(examples))]


def _told(examples: Examples) -> str:
    return f"{len(examples)} row{'s' * (len(examples) > 1)} of {len(examples.ids[0])} tokens"


def _merge(folders: dict[str, Path], rank: int, name: str) -> float:
    folders[name] = folders[NAMES[0]].with_name(name)
    return merge([Part(folders[one], 1 / COUNT) for one in NAMES], rank, folders[name])


@contextmanager
def _folders(base: Base) -> Iterator[dict[str, Path]]:
    """PEFT folders of adapters that share a start; a change of their own adds half of its size."""
    with tempfile.TemporaryDirectory(prefix="loraloom-bench-") as temporary:
        folders = {name: Path(temporary) / name for name in NAMES}
        for seed, folder in enumerate(folders.values()):
            model = attach_adapter(base, LoraConfig(rank=RANK, alpha=2 * RANK), seed=0)
            start, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1 + seed)
            for key, weight in model.named_parameters():
                if ".lora_B." in key:
                    weight.data.copy_(0.02 * torch.randn(weight.shape, generator=start))
                if ".lora_" in key:
                    weight.data += 0.5 * weight.data.std() * torch.randn(weight.shape, generator=own)
            save_adapter(model, folder, base)
            model.unload()
        yield folders


def _examples(count: int, length: int, vocabulary: int) -> Examples:
    random = np.random.default_rng(0)
    ids = [random.integers(3, vocabulary, length).tolist() for _ in range(count)]
    zeros = np.zeros(count, np.int64)
    return Examples(zeros, ids, zeros, [10, 20, 30])
