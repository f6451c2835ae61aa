"""Which split a row belongs to, and which rows of a split are kept.

A row is placed by a hash of its normalised input alone. Rows that are added never move another; a corrected label
never moves its row into test; and the same text in two datasets with the same field names falls into the same split.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from components.artifacts import digest_of
from components.prepared import SPLITS, SplitName

# Tenths of the hash range that a missing split takes out of train.
TENTHS = 10
CARVED: dict[int, SplitName] = {8: "validation", 9: "test"}


def normalise(text: str) -> str:
    """Unicode NFKC, case folded, whitespace collapsed: what makes two inputs the same input."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_id(fields: Mapping[str, str]) -> int:
    """First 63 bits of sha256 over the normalised fields, names included: non-negative in an int64."""
    return int(digest_of({name: normalise(text) for name, text in fields.items()})[:16], 16) >> 1


def place(row: int, given: SplitName, published: Collection[SplitName]) -> SplitName:
    """The split of a row that stands in part ``given`` of the source.

    A published part stays whole, but train gives a tenth to each of validation and test that is not published.
    Unsplit data counts as train with nothing else published, hence 80/10/10.
    """
    carved = CARVED.get(row % TENTHS)
    return carved if given == "train" and carved is not None and carved not in published else given


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """A valid record: its id, the texts of the template's fields in their order, its label or response, its origin."""

    row: int
    texts: tuple[str, ...]
    answer: str
    origin: str
    line: int


class RowCollection:
    """The rows of a dataset, every input once in a split.

    An input that repeats within a split is kept once: its smallest spelling, so that the order of the source does not
    matter. With two different labels it is dropped altogether, for there is no telling which is right. A completion
    dataset may answer a prompt in several ways; one of them is kept.
    """

    def __init__(self, *, completion: bool) -> None:
        self._completion = completion
        self._rows: dict[SplitName, dict[int, Row]] = {split: {} for split in SPLITS}
        self._times: dict[SplitName, Counter[int]] = {split: Counter() for split in SPLITS}
        self._conflicting: dict[SplitName, set[int]] = {split: set() for split in SPLITS}

    def add(self, split: SplitName, row: Row) -> None:
        """Take in a row of ``split``."""
        known = self._rows[split].setdefault(row.row, row)
        if known is row:
            return
        self._times[split][row.row] += 1
        self._rows[split][row.row] = min(known, row)
        if known.answer != row.answer and not self._completion:
            self._conflicting[split].add(row.row)

    def kept(self) -> tuple[dict[SplitName, list[Row]], Counter[str]]:
        """The rows of each split by ascending id, and how many were dropped by reason.

        An input that is also in a later split (train < validation < test) is dropped from the earlier one.
        """
        kept: dict[SplitName, list[Row]] = {}
        dropped: Counter[str] = Counter()
        later: set[int] = set()
        for split in reversed(SPLITS):
            rows, conflicting = self._rows[split], self._conflicting[split]
            for row, repeats in self._times[split].items():
                dropped["conflicting" if row in conflicting else "duplicate"] += repeats
            dropped["conflicting"] += len(conflicting)
            unambiguous = rows.keys() - conflicting
            kept[split] = [rows[row] for row in sorted(unambiguous - later)]
            dropped["in_later_split"] += len(unambiguous & later)
            later |= rows.keys()
        return {split: kept[split] for split in SPLITS}, dropped
