"""Features row by row: those that an earlier run took are copied, so that a dataset that grew costs its new rows only.

All features of one dataset at one theta* and under one projection stand under keys that begin alike, their *shelf*. A
row is known by the rest of what makes its gradient: what the model sees of it, and the right answer.

The price: in batches of other rows a product sums in another order, so what is put together from two runs differs in
the last bits of the model's dtype from what one run over all rows would give. Estimates do not see it; digests do. A
key's first result stays for whoever comes later, as everywhere.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from components.artifacts import MANIFEST, load
from components.label_logits import text_digests
from components.object_store import ObjectStore
from components.prepared import PreparedDataset, SplitName
from components.tables import Features, read_features, write_features

ROWS = "rows.safetensors"  # beside the tables: by split, what each row is known by, int64

# Row digest -> its features [dim] and its margin.
Known = Mapping[int, tuple[np.ndarray, np.float32]]
# Takes a split and positions in it [K], gives the features of these rows by the model.
Compute = Callable[[SplitName, np.ndarray], Features]


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
        Facts: how many rows there are, how many were computed.
    """
    digests = {split: text_digests(dataset.splits[split], at, answered=True) for split, at in index.items()}
    known, computed = look_up(set(np.concatenate(list(digests.values())).tolist())), 0
    for split, at in index.items():
        new = np.array([digest not in known for digest in digests[split].tolist()], dtype=bool)
        copied = {position: known[int(digests[split][position])] for position in np.flatnonzero(~new).tolist()}
        table = compute(split, at[new]) if new.any() else None
        write_features(folder, split, _together(dataset.splits[split].row[at], new, table, copied))
        computed += int(new.sum())
    save_file({str(split): digest for split, digest in digests.items()}, folder / ROWS)
    return {"rows": sum(map(len, index.values())), "computed": computed}


def _together(
    row: np.ndarray, new: np.ndarray, computed: Features | None, copied: Mapping[int, tuple[np.ndarray, np.float32]]
) -> Features:
    """One table: computed rows where ``new`` [M] says so, the others copied by position."""
    dim = len(next(iter(copied.values()))[0]) if computed is None else computed.features.shape[1]
    features, margin = np.zeros((len(row), dim), np.float32), np.zeros(len(row), np.float32)
    if computed is not None:
        features[new], margin[new] = computed.features, computed.margin
    for position, (feature, one) in copied.items():
        features[position], margin[position] = feature, one
    return Features(row, features, margin)


def known_rows(store: ObjectStore, shelf: str, wanted: Collection[int]) -> Known:
    """Those of the ``wanted`` rows that a feature set on the shelf holds, looked for in the newest first."""
    left, known = set(wanted), dict[int, tuple[np.ndarray, np.float32]]()
    sets = [entry for entry in store.entries(shelf) if entry.key.endswith(f"/{MANIFEST}")]
    for entry in sorted(sets, key=lambda entry: entry.modified, reverse=True):
        if not left:
            break
        folder = load(store, entry.key.removesuffix(f"/{MANIFEST}")).folder
        for split, digests in load_file(folder / ROWS).items():
            table = read_features(folder, split)
            for position, digest in enumerate(digests.tolist()):
                if digest in left:
                    known[digest] = table.features[position], table.margin[position]
        left -= known.keys()
    return known
