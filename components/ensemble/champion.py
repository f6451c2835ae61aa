"""The challenger against the champion on the same frozen test rows.

Frozen rows are those the champion was tested on when it was made: its predictions of them are in the store, so nothing
has to be computed again, and rows that came later can favour neither side. Both are held to the labels that the rows
have now. Rows that only the challenger has seen are reported apart and decide nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from components.artifacts import Artifact
from components.ensemble.compare import compare, told
from components.ensemble.metrics import Metric, intervals, score, scored_tables
from components.inputs import Prepared
from components.paired import common_rows
from components.tables import Logits, read_logits


def against_champion(
    champion: Artifact, ours: Mapping[str, Logits], prepared: Prepared, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Compare with the champion.

    Args:
        champion: its evaluation, with its test logits.
        ours: the challenger's test logits by dataset.

    Returns:
        ``comparison``: as the gate reads it, or None where no row can be compared. ``test_rows``: dataset -> ``frozen``
        (rows compared), ``relabelled`` (of these), ``new``, ``gone``, and ``on_new``, the challenger's metric there
        with its interval, or None. ``left_out``: dataset -> why it is not compared.
    """
    theirs, left_out = _aligned(champion, ours, prepared)
    rows = {name: table.row for name, table in ours.items()}
    shared = common_rows(rows, {name: table.row for name, table in theirs.items()})
    left_out |= {name: "none of its test rows is the champion's" for name in theirs if name not in shared}
    frozen: dict[str, tuple[Logits, Logits]] = {}
    for name, (mine, other) in shared.items():
        label = ours[name].label[mine]  # the labels of today, for both
        frozen[name] = _at(ours[name], mine, label), _at(theirs[name], other, label)
    metric: dict[str, Any] = {name: prepared[name].metric for name in ours}
    found = None
    if frozen:
        new, old = (scored_tables({name: pair[side] for name, pair in frozen.items()}) for side in (0, 1))
        found = told("champion", compare(new, old, metric, resamples=resamples, seed=seed))
    test_rows = {
        name: {
            "frozen": len(mine),
            "relabelled": int((ours[name].label[mine] != theirs[name].label[other]).sum()),
            "new": len(ours[name].row) - len(mine),
            "gone": len(theirs[name].row) - len(other),
            "on_new": _on_new(ours[name], mine, metric[name], resamples=resamples, seed=seed, stream=name),
        }
        for name, (mine, other) in shared.items()
    }
    return {"comparison": found, "test_rows": test_rows, "left_out": left_out}


def _aligned(
    champion: Artifact, ours: Mapping[str, Logits], prepared: Prepared
) -> tuple[dict[str, Logits], dict[str, str]]:
    """The champion's test logits with today's order of labels, and why a dataset of either side has none."""
    known: Mapping[str, list[str]] = champion.facts["labels"]
    left_out = {name: "only the champion has it" for name in known if name not in ours}
    theirs: dict[str, Logits] = {}
    for name in ours:
        now = list(prepared[name].labels)
        if name not in known:
            left_out[name] = "new since the champion"
        elif sorted(known[name]) != sorted(now):
            left_out[name] = "its labels are not the champion's"
        else:
            table = read_logits(champion.folder, name)
            order = [known[name].index(label) for label in now] or [0, 1]
            columns, place = np.ascontiguousarray(table.logits[:, order]), np.argsort(order)
            theirs[name] = Logits(table.row, columns, place[table.label].astype(np.int64))
    return theirs, left_out


def _at(table: Logits, index: np.ndarray, label: np.ndarray) -> Logits:
    return Logits(table.row[index], table.logits[index], label)


def _on_new(
    table: Logits, frozen: np.ndarray, metric: Metric, *, resamples: int, seed: int, stream: str
) -> dict[str, float] | None:
    new = np.setdiff1d(np.arange(len(table.row)), frozen)
    if not len(new):
        return None
    scored = score(table.row[new], table.logits[new], table.label[new])
    return asdict(intervals(scored, resamples=resamples, seed=seed, stream=stream)[metric])
