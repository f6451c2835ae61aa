"""What a dataset's settings and records must look like, and the list of what does not."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from components.config import DatasetConfig
from components.data.split import normalise
from components.errors import UserError
from components.formats import Problem, text_of
from components.prepared import SPLITS, SplitName
from components.prompts import template_fields

REPORTED_PER_FILE = 20

# Below these the statistics say nothing. Train: one batch of the default size. Validation: it is halved for
# cross-fitting, and four rows are the least that give a half a standard error. Test: as validation.
MINIMUM_ROWS: dict[SplitName, int] = {"train": 16, "validation": 8, "test": 8}


@dataclass(frozen=True)
class Form:
    """What to take from a record.

    Attributes:
        template: the prompt, with ``{name}`` for each of ``fields``.
        fields: name in the template -> field of the record.
        answer: the record's field with the label or the response.
        completion: whether ``answer`` is a free text.
        words: label -> word; None: the labels are whatever train has, with the splits carved out of it.
    """

    template: str
    fields: dict[str, str]
    answer: str
    completion: bool
    words: dict[str, str] | None

    @property
    def needed(self) -> list[str]:
        """The record's fields that are read, each once."""
        return list(dict.fromkeys([*self.fields.values(), self.answer]))


def form_of(config: DatasetConfig) -> Form:
    """What the settings ask of each record.

    In a template ``{text}``, ``{text_pair}`` and ``{prompt}`` stand for the fields that the settings of these names
    point to; any other name is a field of the record itself.

    Raises:
        UserError: the template cannot be read.
    """
    alias = {"text": config.text, "text_pair": config.text_pair, "prompt": config.prompt}
    template = config.template or _default_template(config)
    names = _template_names(template)
    answer = config.response or config.label
    if shown := [name for name in names if (alias.get(name) or name) == answer]:
        raise UserError(
            f"template: {{{shown[0]}}} shows the model the answer",
            remedy="leave it out; the answer follows the template",
        )
    words = dict(zip(config.labels, config.labels, strict=True)) if isinstance(config.labels, list) else config.labels
    return Form(
        template=template,
        fields={name: alias.get(name) or name for name in names},
        answer=answer,
        completion=config.is_completion,
        words=words,
    )


def _default_template(config: DatasetConfig) -> str:
    if config.is_completion:
        return "{prompt}"
    return "{text}\n{text_pair}\nAnswer:" if config.text_pair else "{text}\nAnswer:"


def _template_names(template: str) -> list[str]:
    try:
        parsed = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise UserError(f"template: {error}", remedy="write a literal brace twice: {{ or }}") from None
    for name, spec, conversion in parsed:
        if not name or name.isdigit() or spec or conversion or set(name) & set(".[]"):
            raise UserError(
                f"template: {name!r} is not a plain field name", remedy="write {field}, nothing more in braces"
            )
    if not parsed:
        raise UserError("template: it shows no field of the record", remedy="write {text} where the text belongs")
    return template_fields(template)


def label_problems(config: DatasetConfig) -> list[str]:
    """What is wrong with the setting ``labels``, one line each."""
    if config.labels is None:
        return []
    if config.is_completion:
        return ["labels: a completion dataset has none"]
    problems = [] if len(config.labels) > 1 else ["labels: at least two are needed"]
    words = config.labels if isinstance(config.labels, list) else list(config.labels.values())
    problems += [f"labels: {word!r} is given twice" for word, times in Counter(words).items() if times > 1]
    return problems + (["labels: a word is empty"] if any(not word.strip() for word in words) else [])


def alike_problems(labels: Collection[str]) -> list[str]:
    """Labels found in the data that are the same but for case and spacing: most often one label, spelt in two ways."""
    spelt: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spelt[normalise(label)].append(label)
    return [
        f"labels that differ in case or spacing only: {', '.join(map(repr, sorted(same)))}; mend them, or list all "
        "labels under 'labels' if they are meant"
        for same in spelt.values()
        if len(same) > 1
    ]


def check_record(form: Form, values: Mapping[str, Any]) -> tuple[dict[str, str], str] | Problem:
    """The texts of the template's fields and the label or response, or what is wrong with the record."""
    texts: dict[str, str] = {}
    for name, field in form.fields.items():
        text = _text(field, values)
        if isinstance(text, Problem):
            return text
        texts[name] = text
    answer = _text(form.answer, values) if form.completion else _label(form.answer, values)
    if isinstance(answer, Problem):
        return answer
    if form.words is not None and answer not in form.words:
        return unknown_label(answer, list(form.words), "the labels in the settings")
    return texts, answer


def unknown_label(label: str, known: list[str], of: str) -> Problem:
    """A label outside ``known``, which is shortened where it is long."""
    shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    return Problem("unknown_label", f"label {label!r} is not among {of} ({shown})")


def _text(field: str, values: Mapping[str, Any]) -> str | Problem:
    value = values.get(field)
    if field in values and (value is None or (isinstance(value, float) and math.isnan(value))):
        return Problem("missing_field", f"field {field!r} has no value")
    if value is None:
        return Problem("missing_field", f"no field {field!r} (there are: {', '.join(map(str, values)) or 'none'})")
    text = text_of(value)
    if text is None:
        return Problem("not_text", f"field {field!r} is a {type(value).__name__}, not a text")
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte that the reader could not decode, or half of a surrogate pair
        return Problem("wrong_encoding", f"field {field!r} is not valid UTF-8")
    if "\0" in text:
        return Problem("wrong_encoding", f"field {field!r} holds a NUL character; is the file UTF-16, or no text?")
    return text if text.strip() else Problem("empty_text", f"field {field!r} is empty")


def _label(field: str, values: Mapping[str, Any]) -> str | Problem:
    """Labels are names: true is 'true' and 1 is '1', also where a table's missing values made it 1.0."""
    value = values.get(field)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isnan(value):
        if not value.is_integer():
            return Problem("unknown_label", f"label {value} is a number with a fraction, not a class")
        return str(int(value))
    text = _text(field, values)
    return text if isinstance(text, Problem) else text.strip()


class BadRows:
    """The bad rows of a dataset: all counted, the first of each file described."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._of_file: Counter[str] = Counter()
        self._lines: dict[str, list[tuple[int, str]]] = defaultdict(list)

    def add(self, origin: str, line: int, problem: Problem) -> None:
        """Note a bad row."""
        self.reasons[problem.reason] += 1
        self._of_file[origin] += 1
        if len(self._lines[origin]) < REPORTED_PER_FILE:
            self._lines[origin].append((line, problem.what))

    def report(self) -> list[str]:
        """One line a bad row, up to ``REPORTED_PER_FILE`` a file, then how many more there are."""
        report = []
        for origin, lines in self._lines.items():
            report += [f"{origin}:{line}: {what}" for line, what in sorted(lines)]
            if more := self._of_file[origin] - len(lines):
                report.append(f"{origin}: {more} more bad rows")
        return report


def size_problems(rows: Mapping[SplitName, int], classes: Mapping[SplitName, int], *, completion: bool) -> list[str]:
    """Splits that are too small, or have one class only, one line each.

    Args:
        rows: usable rows a split.
        classes: distinct labels a split. Validation needs two, because losses are compared in units of its entropy.
    """
    few = [
        f"{split} has {rows[split]} usable rows; at least {MINIMUM_ROWS[split]} are needed"
        for split in SPLITS
        if rows[split] < MINIMUM_ROWS[split]
    ]
    if completion:
        return few
    return few + [
        f"all rows of {split} have the same label; at least two classes are needed"
        for split in ("train", "validation")
        if rows[split] and classes[split] < 2
    ]


WHY_DROPPED = {
    "in_later_split": "they stand in a later split too (train < validation < test)",
    "conflicting": "the same input has two labels",
    "duplicate": "the same input stands there again",
}


def where_rows_went(dropped: Mapping[str, int]) -> list[str]:
    """Why rows that can be read are not used, one line a reason: for a dataset that has too few."""
    return [f"{dropped[why]} rows were dropped because {text}" for why, text in WHY_DROPPED.items() if dropped.get(why)]
