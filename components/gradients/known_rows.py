"""Features row by row: those that an earlier run took are copied, so that a dataset that grew costs its new rows only.

All features of one dataset at one point and under one projection stand under keys that begin alike, their *shelf*. A
row is known by the rest of what makes its gradient: what the model sees of it, and the right answer.

What a row cost stands with it, so the set knows what its features cost in all, whichever run took them.

The price: in batches of other rows a product sums in another order, so what is put together from two runs differs in
the last bits of the model's dtype from what one run over all rows would give. Estimates do not see it; digests do. A
key's first result stays for whoever comes later, as everywhere.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from components.artifacts import MANIFEST, load
from components.label_logits import text_digests
from components.object_store import ObjectStore
from components.prepared import SPLITS, PreparedDataset, SplitName
from components.tables import Features, read_features, write_features

# Beside the tables, int64: under a split's name what each of its rows is known by, under "<split>.flops" their costs.
ROWS = "rows.safetensors"


@dataclass(frozen=True)
class Taken:
    """Features of K rows, and the FLOPs that each row's gradient took, int64 [K]."""

    table: Features
    flops: np.ndarray


@dataclass(frozen=True)
class KnownRow:
    """One row as an earlier run took it: features [dim], margin, FLOPs."""

    features: np.ndarray
    margin: np.float32
    flops: int


# By row digest.
Known = Mapping[int, KnownRow]
# Takes a split and positions in it [K], gives the features of these rows by the model.
Compute = Callable[[SplitName, np.ndarray], Taken]


def write_row_by_row(
    folder: Path,
    dataset: PreparedDataset,
    index: Mapping[SplitName, np.ndarray],
    look_up: Callable[[Collection[int]], Known],
    compute: Compute,
) -> dict[str, int]:
    """Write the features of the rows at ``index`` of each split, and what they are known by, into ``folder``.

    Args:
        index: positions, ascending.
        look_up: gives those of the wanted rows that are known.
        compute: asked for the others; not at all where there are none.

    Returns:
        Facts: how many ``rows`` there are and what their features took in all (``flops``); of these, how many were
        ``computed`` here and what that took (``flops_computed``).
    """
    digests = {split: text_digests(dataset.splits[split], at, answered=True) for split, at in index.items()}
    known, beside = look_up(set(np.concatenate(list(digests.values())).tolist())), dict[str, np.ndarray]()
    facts = {"rows": 0, "flops": 0, "computed": 0, "flops_computed": 0}
    for split, at in index.items():
        new = np.array([digest not in known for digest in digests[split].tolist()], dtype=bool)
        copied = {position: known[int(digests[split][position])] for position in np.flatnonzero(~new).tolist()}
        whole = _together(dataset.splits[split].row[at], new, compute(split, at[new]) if new.any() else None, copied)
        write_features(folder, split, whole.table)
        beside |= {split: digests[split], f"{split}.flops": whole.flops}
        facts["rows"] += len(at)
        facts["flops"] += int(whole.flops.sum())
        facts["computed"] += int(new.sum())
        facts["flops_computed"] += int(whole.flops[new].sum())
    save_file(beside, folder / ROWS)
    return facts


def _together(row: np.ndarray, new: np.ndarray, computed: Taken | None, copied: Mapping[int, KnownRow]) -> Taken:
    """All rows: those computed where ``new`` [M] says so, the others copied by position."""
    dim = len(next(iter(copied.values())).features) if computed is None else computed.table.features.shape[1]
    features, margin = np.zeros((len(row), dim), np.float32), np.zeros(len(row), np.float32)
    flops = np.zeros(len(row), np.int64)
    if computed is not None:
        features[new], margin[new], flops[new] = computed.table.features, computed.table.margin, computed.flops
    for position, one in copied.items():
        features[position], margin[position], flops[position] = one.features, one.margin, one.flops
    return Taken(Features(row, features, margin), flops)


def known_rows(store: ObjectStore, shelf: str, wanted: Collection[int]) -> Known:
    """Those of the ``wanted`` rows that a feature set on the shelf holds, looked for in the newest first."""
    left, known = set(wanted), dict[int, KnownRow]()
    sets = [entry for entry in store.entries(shelf) if entry.key.endswith(f"/{MANIFEST}")]
    for entry in sorted(sets, key=lambda entry: entry.modified, reverse=True):
        if not left:
            break
        folder = load(store, entry.key.removesuffix(f"/{MANIFEST}")).folder
        beside = load_file(folder / ROWS)
        for split in (name for name in SPLITS if name in beside):
            table, flops = read_features(folder, split), beside[f"{split}.flops"].tolist()
            for position, digest in enumerate(beside[split].tolist()):
                if digest in left:
                    known[digest] = KnownRow(table.features[position], table.margin[position], flops[position])
        left -= known.keys()
    return known
