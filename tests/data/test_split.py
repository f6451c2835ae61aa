"""Placement by hash, and which rows are kept: checked against a slow and obvious reference, in any order."""

import json
from collections import Counter
from hashlib import sha256
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.split import Row, RowCollection, normalise, place, row_id
from components.prepared import SPLITS, SplitName

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" A\t\nb ", "a b"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("ﬁne", "fine"),
        ("\uff12", "2"),
        ("e\u0301", "é"),
    ],
)
def test_normalise(text: str, same: str) -> None:
    assert normalise(text) == same


def test_row_id_is_63_bits_of_sha256_over_normalised_fields_with_names() -> None:
    canonical = json.dumps({"a": "one two", "b": "ä"}, separators=(",", ":"), ensure_ascii=False)
    expected = int.from_bytes(sha256(canonical.encode()).digest()[:8], "big") // 2
    assert row_id({"b": "Ä", "a": " One  TWO"}) == expected
    assert 0 <= expected < 2**63


def test_field_names_and_borders_count() -> None:
    ids = [
        row_id(fields) for fields in ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}, {"a": "x y"}, {"a": "x"}, {"c": "x"})
    ]
    assert len(set(ids)) == 5


def test_unsplit_data_falls_into_80_10_10() -> None:
    places = Counter(place(row_id({"text": str(number)}), "train", {"train"}) for number in range(5000))
    assert places["validation"] == pytest.approx(500, abs=70)
    assert places["test"] == pytest.approx(500, abs=70)


@given(st.integers(0, 2**63 - 1))
def test_published_parts_stay_and_train_gives_only_what_is_missing(row: int) -> None:
    unsplit = place(row, "train", {"train"})
    given_parts: list[set[SplitName]] = [{"train"}, {"train", "test"}, {"train", "validation"}, set(SPLITS)]
    for published in given_parts:
        assert place(row, "train", published) == ("train" if unsplit in published else unsplit)
        assert place(row, "test", published) == "test"
        assert place(row, "validation", published) == "validation"


def collect(
    rows: list[tuple[str, str, str]], *, completion: bool = False
) -> tuple[dict[str, set[tuple[str, str]]], Counter[str]]:
    """Rows given as (split, text, answer)."""
    collection = RowCollection(completion=completion)
    for line, (split, text, answer) in enumerate(rows, 1):
        collection.add(split, Row(row_id({"text": text}), (text,), answer, "file", line))  # type: ignore[arg-type]
    kept, dropped = collection.kept()
    return {split: {(row.texts[0], row.answer) for row in kept[split]} for split in SPLITS}, +dropped


def test_repeats_are_kept_once() -> None:
    kept, dropped = collect([("train", "a", "x"), ("train", "A ", "x"), ("train", "a", "x"), ("train", "b", "y")])
    assert kept["train"] == {("A ", "x"), ("b", "y")}
    assert dropped == {"duplicate": 2}


def test_an_input_with_two_labels_is_dropped_altogether() -> None:
    kept, dropped = collect([("train", "a", "x"), ("train", "a", "y"), ("train", "a", "x"), ("train", "b", "y")])
    assert kept["train"] == {("b", "y")}
    assert dropped == {"conflicting": 3}


def test_a_prompt_with_two_responses_keeps_one() -> None:
    kept, dropped = collect([("train", "a", "y"), ("train", "a", "x")], completion=True)
    assert kept["train"] == {("a", "x")}
    assert dropped == {"duplicate": 1}


def test_an_input_in_several_splits_stays_in_the_last() -> None:
    kept, dropped = collect([("test", "a", "x"), ("validation", "A", "y"), ("train", "a", "x"), ("train", "b", "x")])
    assert kept == {"train": {("b", "x")}, "validation": set(), "test": {("a", "x")}}
    assert dropped == {"in_later_split": 2}


def test_the_order_of_the_source_does_not_matter() -> None:
    rows = [("train", "a", "x"), ("train", " A", "x"), ("test", "b", "x"), ("train", "b", "y"), ("test", "b", "y")]
    first = collect(rows)
    assert all(collect(list(order)) == first for order in permutations(rows))


def reference(rows: list[tuple[str, str, str]]) -> dict[str, set[tuple[str, str]]]:
    """What is kept, straight from the rule's words."""
    kept: dict[str, set[tuple[str, str]]] = {split: set() for split in SPLITS}
    for split, text, _ in rows:
        twins = [row for row in rows if normalise(row[1]) == normalise(text)]
        here = [row for row in twins if row[0] == split]
        is_later = any(SPLITS.index(row[0]) > SPLITS.index(split) for row in twins)
        if not is_later and len({row[2] for row in here}) == 1:
            kept[split].add(min((row[1], row[2]) for row in here))
    return kept


@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from(["a", "A", "b", "B ", "c"]), st.sampled_from("xy"))))
def test_kept_rows_follow_the_rule_and_every_row_is_accounted_for(rows: list[tuple[str, str, str]]) -> None:
    kept, dropped = collect(rows)
    assert kept == reference(rows)
    assert sum(map(len, kept.values())) + dropped.total() == len(rows)


@given(st.lists(st.tuples(TEXTS, st.sampled_from("xy")), unique_by=lambda row: normalise(row[0])), st.randoms())
def test_neither_new_rows_nor_new_labels_move_a_row(rows: list[tuple[str, str]], random: object) -> None:
    def home(some: list[tuple[str, str]]) -> dict[str, str]:
        kept, _ = collect([(place(row_id({"text": text}), "train", {"train"}), text, label) for text, label in some])
        return {text: split for split in SPLITS for text, _ in kept[split]}

    before = home(rows[: len(rows) // 2])
    after = home(rows)
    relabelled = home([(text, random.choice("xyz")) for text, _ in rows])  # type: ignore[attr-defined]
    assert before == {text: after[text] for text in before}
    assert relabelled == after
