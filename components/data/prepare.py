"""From a dataset's settings to a prepared dataset, or to one list of everything that is wrong with it."""

from collections import Counter
from pathlib import Path

import numpy as np

from components.config import DatasetConfig, StorageConfig
from components.data.read import open_source
from components.data.split import Row, RowCollection, place, row_id
from components.data.validate import (
    BadRows,
    Form,
    alike_problems,
    check_record,
    form_of,
    label_problems,
    size_problems,
    unknown_label,
    where_rows_went,
)
from components.errors import UserError
from components.formats import Problem
from components.prepared import SPLITS, PreparedDataset, Split, SplitName

Rows = dict[SplitName, list[Row]]


def prepare(config: DatasetConfig, storage: StorageConfig, base_dir: Path) -> PreparedDataset:
    """Read, validate and split one dataset.

    Args:
        storage: endpoint settings for an s3:// path; its own address is not used.
        base_dir: what a relative path is relative to, the config file's folder.

    Raises:
        UserError: with every problem of the dataset, from its settings to its rows.
    """
    problems = label_problems(config)
    bad = BadRows()
    try:
        form = form_of(config)
        collected, published = _collect(config, form, storage, base_dir, bad)
        rows, dropped = collected.kept()
    except UserError as error:
        raise _failure(config, problems + list(_lines(error)) + bad.report()) from error
    words = form.words or {}
    if form.words is None and not form.completion:
        # Rows carved out of train bring their labels: a rare one may have been carved out whole.
        own = [split for split in SPLITS if split == "train" or split not in published]
        words = {label: label for label in sorted({row.answer for split in own for row in rows[split]})}
        rows = _without_unknown(rows, words, bad)
        problems += alike_problems(words)
    rows, dropped = _within_limits(rows, config, dropped)
    classes = {split: len({row.answer for row in rows[split]}) for split in rows}
    small = size_problems({split: len(rows[split]) for split in rows}, classes, completion=form.completion)
    problems += [*small, *where_rows_went(dropped)] if small else []
    if problems or config.on_bad_rows == "error":
        problems += bad.report()
    if problems:
        raise _failure(config, problems)
    return PreparedDataset(
        name=config.name,
        template=form.template,
        labels=tuple(words),
        words=tuple(words.values()),
        metric=config.metric,
        completion=form.completion,
        splits={split: _split(rows[split], form, list(words)) for split in rows},
        counts={
            "rows": {split: len(rows[split]) for split in rows},
            "dropped": {reason: count for reason, count in sorted((dropped + bad.reasons).items()) if count},
        },
    )


def _lines(error: UserError) -> tuple[str, ...]:
    return error.problems or (f"{error.what} ({error.remedy})" if error.remedy else error.what,)


def _failure(config: DatasetConfig, problems: list[str]) -> UserError:
    remedy = "mend these"
    if config.on_bad_rows == "error":
        remedy += "; 'on_bad_rows: drop' leaves bad rows out and counts them"
    return UserError(f"dataset {config.name!r} cannot be used", remedy=remedy, problems=tuple(problems))


def _collect(
    config: DatasetConfig, form: Form, storage: StorageConfig, base_dir: Path, bad: BadRows
) -> tuple[RowCollection, set[SplitName]]:
    """One pass over all parts of the source: its rows, and the splits it publishes.

    Bad rows go to ``bad``; unreadable parts raise after the last part.
    """
    rows = RowCollection(completion=form.completion)
    unreadable: list[str] = []
    with open_source(config, storage, base_dir) as parts:
        published = {part.split for part in parts}
        for part in parts:
            try:
                for line, values in part.rows(form.needed):
                    checked = values if isinstance(values, Problem) else check_record(form, values)
                    if isinstance(checked, Problem):
                        bad.add(part.origin, line, checked)
                        continue
                    texts, answer = checked
                    row = Row(row_id(texts), tuple(texts.values()), answer, part.origin, line)
                    rows.add(place(row.row, part.split, published), row)
            except UserError as error:
                unreadable += _lines(error)
    if unreadable:
        raise UserError("parts of the source cannot be read", problems=tuple(unreadable))
    return rows, published


def _without_unknown(rows: Rows, words: dict[str, str], bad: BadRows) -> Rows:
    """The rows whose label is in ``words``; the others go to ``bad``."""
    for split in rows:
        for row in rows[split]:
            if row.answer not in words:
                bad.add(row.origin, row.line, unknown_label(row.answer, list(words), "the labels of train"))
    return {split: [row for row in rows[split] if row.answer in words] for split in rows}


def _within_limits(rows: Rows, config: DatasetConfig, dropped: Counter[str]) -> tuple[Rows, Counter[str]]:
    """At most ``max_rows`` a split, the lowest ids: a random sample that stays the same where rows are added."""
    limits = config.max_rows or {}
    cut = {split: rows[split][: limits.get(split)] for split in rows}
    return cut, dropped + Counter(over_max_rows=sum(len(rows[split]) - len(cut[split]) for split in rows))


def _split(rows: list[Row], form: Form, labels: list[str]) -> Split:
    index = {label: number for number, label in enumerate(labels)}
    return Split(
        row=np.array([row.row for row in rows], np.int64),
        fields={name: [row.texts[i] for row in rows] for i, name in enumerate(form.fields)},
        label=np.array([-1 if form.completion else index[row.answer] for row in rows], np.int64),
        response=[row.answer for row in rows] if form.completion else None,
    )
