"""Per-sample projected gradients: against an ordinary training step, and against the textbook way."""

from collections.abc import Callable

import torch
from peft import PeftModel

from benchmarks.measure import Row, alternate
from benchmarks.setting import MAX_LENGTH, adapted, base_model, mixed, tokenized
from components.examples import Batch, Examples, collate, length_batches
from components.gradients.per_sample import lora_layers, watched
from components.gradients.projection import Projection
from components.language_model import answer_logits, margins

DIM = 400
BATCHES = 3


def rows() -> list[Row]:
    """Batches of 8, 16 and 32 rows of mixed lengths, sorted by length as extraction has them."""
    base = base_model()
    model = adapted(base)
    parts = tokenized(base)
    found: list[Row] = []
    faster = 10.0  # than the textbook way, and more with larger batches
    for size in (8, 16, 32):
        examples = mixed(parts, BATCHES * size)
        order = [int(i) for batch in length_batches(examples.ids, 1) for i in batch]
        cut = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [collate([(examples, i) for i in rows]) for rows in cut]
        extract = _extraction(model, batches)
        ours, theirs = alternate(extract, _training(model, batches), repeats=7)
        tokens = int(sum(batch.length.sum() for batch in batches))
        note = f"{BATCHES} batches, {tokens} tokens, LoRA rank 16"
        found.append(Row(f"gradients, batch {size}: training step", ours, theirs, ours / theirs, 1.15, note=note))
        if size != 16:
            found.append(_against_textbook(model, examples, cut[1], size, faster))
            faster = max(faster, found[-1].ratio)
    return found


def _extraction(model: PeftModel, batches: list[Batch]) -> Callable[[], None]:
    layers, projection = lora_layers(model), Projection(DIM, 0, "count_sketch", torch.device("cpu"))

    def run() -> None:
        for batch in batches:
            sums = projection.sums(len(batch.length))
            with watched(model, layers, len(sums), lambda name, g, sums=sums: projection.accumulate(name, g, sums)):
                margins(answer_logits(model, batch), batch.label).sum().backward()
            projection.projected(sums)

    run()  # makes the projection's bins
    return run


def _training(model: PeftModel, batches: list[Batch]) -> Callable[[], None]:
    """Forward and backward pass of the same loss over the same batches; logits at the answers only, too."""

    def run() -> None:
        for batch in batches:
            torch.nn.functional.softplus(-margins(answer_logits(model, batch), batch.label)).mean().backward()
            model.zero_grad()

    run()
    return run


def _against_textbook(model: PeftModel, examples: Examples, rows: list[int], size: int, target: float) -> Row:
    """One backward pass a sample over the batch's graph, logits everywhere, padded, times a dense matrix.

    Two of the samples are measured, and the rest of the batch reckoned by their difference: they cost the same.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrix = torch.randn(sum(w.numel() for w in weights), DIM)
    ids = torch.zeros(size, MAX_LENGTH, dtype=torch.long)
    for row, i in enumerate(rows):
        ids[row, : len(examples.ids[i])] = torch.tensor(examples.ids[i])
    last = torch.tensor([len(examples.ids[i]) - 1 for i in rows])
    label = torch.from_numpy(examples.label[rows])

    def textbook(samples: int) -> None:
        logits = model(input_ids=ids, attention_mask=(torch.arange(MAX_LENGTH) <= last[:, None]).long()).logits
        h = margins(logits[torch.arange(size), last][:, examples.label_tokens], label)
        for i in range(samples):
            gradient = torch.autograd.grad(h[i], weights, retain_graph=True)
            torch.cat([part.flatten() for part in gradient]) @ matrix

    extract = _extraction(model, [collate([(examples, i) for i in rows])])
    ours, one, two = alternate(extract, lambda: textbook(1), lambda: textbook(2))
    theirs = one + (size - 1) * (two - one)
    note = f"padded to {MAX_LENGTH}, dense float32 projection; 2 of {size} backward passes measured"
    return Row(f"gradients, batch {size}: textbook", ours, theirs, theirs / ours, target, "at least", note=note)
