"""A dataset ready for use: the artifact that `prepare` writes and every later step reads.

Rows are sorted by row id, so that the order of the source's lines never reaches the digest. The Parquet bytes are
deterministic for one pyarrow version (its version string is in the file): an upgrade changes digests, and work is done
anew rather than taken for the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Artifact, canonical, digest_of

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
FIELD = "field:"  # column prefix: a template field may be called 'row' or 'label' without clashing


@dataclass(frozen=True)
class Split:
    """The rows of one split, by ascending row id.

    Attributes:
        row: int64 [N], first 63 bits of sha256 over the normalised input; unique within a dataset.
        fields: for each template field, N texts.
        label: int64 [N], index into the dataset's labels; -1 for a completion dataset.
        response: N responses of a completion dataset, else None.
    """

    row: np.ndarray
    fields: dict[str, list[str]]
    label: np.ndarray
    response: list[str] | None


@dataclass(frozen=True)
class PreparedDataset:
    """One labelled task with its three splits.

    Attributes:
        template: prompt with ``{field}`` for every field of the splits.
        labels: label names in index order; empty for a completion dataset.
        words: what the model answers for each label.
        counts: ``{"rows": {split: kept}, "dropped": {reason: how many}}``.
    """

    name: str
    template: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    metric: str
    completion: bool
    splits: dict[SplitName, Split]
    counts: dict[str, dict[str, int]]

    @property
    def rendering(self) -> str:
        """Digest of how the dataset is put to the model: its template and label words, 16 hex digits."""
        return digest_of([self.template, self.words])[:16]

    def entropy(self, split: SplitName = "validation") -> float:
        """Entropy in nats of the labels of ``split``; 1.0 for a completion dataset, which has none."""
        if self.completion:
            return 1.0
        share = np.bincount(self.splits[split].label) / len(self.splits[split].label)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())


def write_prepared(dataset: PreparedDataset, folder: Path) -> dict[str, Any]:
    """Write one Parquet file a split into ``folder``; returns the artifact's facts."""
    for name, split in dataset.splits.items():
        pq.write_table(_table(dataset, split), folder / f"{name}.parquet", compression="zstd")
    return {
        "name": dataset.name,
        "template": dataset.template,
        "labels": list(dataset.labels),
        "words": list(dataset.words),
        "metric": dataset.metric,
        "completion": dataset.completion,
        "counts": dataset.counts,
    }


def read_prepared(artifact: Artifact) -> PreparedDataset:
    """The dataset that :func:`write_prepared` wrote."""
    facts = artifact.facts
    return PreparedDataset(
        name=facts["name"],
        template=facts["template"],
        labels=tuple(facts["labels"]),
        words=tuple(facts["words"]),
        metric=facts["metric"],
        completion=facts["completion"],
        splits={name: _read_split(artifact.folder / f"{name}.parquet") for name in SPLITS},
        counts=facts["counts"],
    )


def _table(dataset: PreparedDataset, split: Split) -> pa.Table:
    columns = {"row": pa.array(split.row, pa.int64()), "label": pa.array(split.label, pa.int64())}
    if split.response is not None:
        columns["response"] = pa.array(split.response, pa.string())
    columns |= {FIELD + name: pa.array(split.fields[name], pa.string()) for name in sorted(split.fields)}
    # An artifact's digest covers its files only. What the model sees besides the rows must change the digest too,
    # or features and adapters made with other label words would pass for these.
    seen = {"template": dataset.template, "labels": dataset.labels, "words": dataset.words}
    return pa.table(columns).replace_schema_metadata({"loraloom": canonical(seen)})


def _read_split(path: Path) -> Split:
    table = pq.read_table(path)
    return Split(
        row=table["row"].to_numpy(),
        fields={
            name.removeprefix(FIELD): table[name].to_pylist() for name in table.column_names if name.startswith(FIELD)
        },
        label=table["label"].to_numpy(),
        response=table["response"].to_pylist() if "response" in table.column_names else None,
    )
