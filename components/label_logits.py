"""Logits of one model on one split, remembered row by row.

The store keeps them by (model, dataset, how it is rendered, split). When a dataset grows, rows that are already known
are copied and only the new ones go through the model; when nothing is new, no model is loaded at all.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from components.artifacts import digest_of, load
from components.prepared import PreparedDataset, Split, SplitName
from components.step import Step
from components.tables import Logits, read_logits, write_logits

FILE, TEXTS = "logits", "texts.safetensors"

# Takes positions in the split [K], gives logits float32 [K, C].
Compute = Callable[[np.ndarray], np.ndarray]


def obtain_logits(
    step: Step,
    model_digest: str,
    dataset: PreparedDataset,
    split: SplitName,
    compute: Compute,
    *,
    model: str,
    index: np.ndarray | None = None,
) -> Logits:
    """A model's logits on a split, from the store as far as they are there.

    Args:
        model_digest: digest of everything that fixes the model's outputs: base, quantization, adapter.
        compute: asked for the rows that are not known yet.
        model: what the step calls the model; the logits are passed on as ``logits/<model>/<dataset>/<split>``.
        index: positions in the split, all by default.
    """
    part = dataset.splits[split]
    index = np.arange(len(part.row)) if index is None else index
    rows, label = part.row[index], np.ones(len(index), np.int64) if dataset.completion else part.label[index]
    texts = text_digests(part, index)
    shelf = f"logits/{model_digest[:24]}/{dataset.name}/{split}/{dataset.rendering}"
    content = digest_of([rows.tolist(), label.tolist(), texts.tolist()])

    def write(folder: Path) -> dict[str, int]:
        known = _known(step, shelf)
        missing = np.array([text not in known for text in texts.tolist()], dtype=bool)
        out = np.zeros((len(rows), max(2, len(dataset.labels))), dtype=np.float32)
        if missing.any():
            out[missing] = compute(index[missing])
        for i in np.flatnonzero(~missing):
            out[i] = known[int(texts[i])]
        write_logits(folder, FILE, Logits(rows, out, label))
        save_file({"text": texts}, folder / TEXTS)
        return {"rows": len(rows), "computed": int(missing.sum())}

    inputs = {
        "model": model_digest,
        "dataset": dataset.name,
        "split": split,
        "rendering": dataset.rendering,
        "rows": content,
    }
    label_in_step = logits_label(model, dataset.name, split)
    artifact = step.obtain(label_in_step, "logits", inputs, write, key=f"{shelf}/{content[:24]}")
    return read_logits(artifact.folder, FILE)


def logits_label(model: str, dataset: str, split: str) -> str:
    """The label under which a step passes logits on."""
    return f"logits/{model}/{dataset}/{split}"


def passed_logits(step: Step, references: Mapping[str, str], model: str, dataset: str, split: str) -> Logits:
    """Logits that an earlier step passed on."""
    return read_logits(step.load(references, logits_label(model, dataset, split)).folder, FILE)


def text_digests(part: Split, index: np.ndarray, *, answered: bool = False) -> np.ndarray:
    """What the model sees of each row, fields and response, as int64 [K]; ``answered``: with the right answer.

    A row id does not tell: it is blind to case and spacing, and to the response.
    """
    columns = [part.fields[name] for name in sorted(part.fields)] + ([part.response] if part.response else [])
    if answered:
        columns.append([str(label) for label in part.label.tolist()])
    seen = [digest_of([column[i] for column in columns]) for i in index]
    return np.array([int(digest[:15], 16) for digest in seen], dtype=np.int64)


def _known(step: Step, shelf: str) -> dict[int, np.ndarray]:
    """Texts that earlier runs have seen, with their logits."""
    known: dict[int, np.ndarray] = {}
    for key in step.store.keys(f"{shelf}/"):
        if key.endswith("/manifest.json"):
            folder = load(step.store, key.removesuffix("/manifest.json")).folder
            texts = load_file(folder / TEXTS)["text"]
            known |= dict(zip(texts.tolist(), read_logits(folder, FILE).logits, strict=True))
    return known
