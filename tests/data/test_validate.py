"""Settings and single records: what is taken, and the words for what is not."""

from typing import Any

import pytest

from components.config import DatasetConfig
from components.data.validate import BadRows, check_record, form_of, label_problems, size_problems
from components.errors import UserError
from components.formats import Problem
from components.prepared import SplitName


def config(**settings: Any) -> DatasetConfig:
    return DatasetConfig(name="demo", path="demo.jsonl", **settings)


@pytest.mark.parametrize(
    ("settings", "template", "fields", "answer"),
    [
        ({}, "{text}\nAnswer:", {"text": "text"}, "label"),
        ({"text": "review", "label": "stars"}, "{text}\nAnswer:", {"text": "review"}, "stars"),
        ({"text_pair": "reply"}, "{text}\n{text_pair}\nAnswer:", {"text": "text", "text_pair": "reply"}, "label"),
        ({"template": "{{}} {b}{a}{b}"}, "{{}} {b}{a}{b}", {"b": "b", "a": "a"}, "label"),
        ({"prompt": "question", "response": "reply"}, "{prompt}", {"prompt": "question"}, "reply"),
        ({"prompt": "q", "response": "r", "template": "Q: {prompt}"}, "Q: {prompt}", {"prompt": "q"}, "r"),
    ],
)
def test_form(settings: dict[str, Any], template: str, fields: dict[str, str], answer: str) -> None:
    form = form_of(config(**settings))
    assert (form.template, form.fields, form.answer) == (template, fields, answer)
    assert form.needed == [*fields.values(), answer]


def test_words_default_to_the_labels() -> None:
    assert form_of(config(labels=["b", "a"])).words == {"b": "b", "a": "a"}
    assert form_of(config(labels={"1": "bad", "0": "good"})).words == {"1": "bad", "0": "good"}
    assert form_of(config()).words is None


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("no field", "shows no field"),
        ("{}", "'' is not a plain field name"),
        ("{0}", "'0' is not a plain"),
        ("{text.upper}", "'text.upper' is not a plain"),
        ("{text[0]}", "is not a plain"),
        ("{text!r}", "'text' is not a plain"),
        ("{text:>9}", "'text' is not a plain"),
        ("{text", "expected '}'"),
        ("text}", "Single '}'"),
    ],
)
def test_broken_templates(template: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        form_of(config(template=template))


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({}, []),
        ({"labels": ["a", "b"]}, []),
        ({"labels": ["a"]}, ["labels: at least two are needed"]),
        ({"labels": ["a", "a", " "]}, ["labels: 'a' is given twice", "labels: a word is empty"]),
        ({"labels": {"0": "yes", "1": "yes"}}, ["labels: 'yes' is given twice"]),
        ({"labels": ["a", "b"], "prompt": "p", "response": "r"}, ["labels: a completion dataset has none"]),
    ],
)
def test_label_problems(settings: dict[str, Any], problems: list[str]) -> None:
    assert label_problems(config(**settings)) == problems


@pytest.mark.parametrize(
    ("label", "name"),
    [("a", "a"), (" a ", "a"), (3, "3"), (-1, "-1"), (3.0, "3"), (True, "true"), (False, "false")],
)
def test_labels_become_names(label: object, name: str) -> None:
    assert check_record(form_of(config()), {"text": "t", "label": label}) == ({"text": "t"}, name)


def test_texts_are_taken_as_they_are_and_numbers_are_written_out() -> None:
    form = form_of(config(template="{text}{age}{score}"))
    record = {"text": " a\n", "age": 7, "score": 0.5, "label": "x", "unused": [1]}
    assert check_record(form, record) == ({"text": " a\n", "age": "7", "score": "0.5"}, "x")


@pytest.mark.parametrize(
    ("record", "reason", "what"),
    [
        ({"label": "x"}, "missing_field", "no field 'text' (there are: label)"),
        ({}, "missing_field", "no field 'text' (there are: none)"),
        ({"text": "t"}, "missing_field", "no field 'label' (there are: text)"),
        ({"text": None, "label": "x"}, "missing_field", "field 'text' has no value"),
        ({"text": float("nan"), "label": "x"}, "missing_field", "field 'text' has no value"),
        ({"text": "t", "label": float("nan")}, "missing_field", "field 'label' has no value"),
        ({"text": " \n", "label": "x"}, "empty_text", "field 'text' is empty"),
        ({"text": "t", "label": ""}, "empty_text", "field 'label' is empty"),
        ({"text": ["t"], "label": "x"}, "not_text", "field 'text' is a list, not a text"),
        ({"text": "t", "label": {"x": 1}}, "not_text", "field 'label' is a dict, not a text"),
        ({"text": "\ud800", "label": "x"}, "wrong_encoding", "field 'text' is not valid UTF-8"),
        ({"text": "t", "label": 0.5}, "unknown_label", "label 0.5 is a number with a fraction, not a class"),
        ({"text": "t", "label": "z"}, "unknown_label", "label 'z' is not among the labels in the settings (x, y)"),
    ],
)
def test_bad_records(record: dict[str, Any], reason: str, what: str) -> None:
    assert check_record(form_of(config(labels=["x", "y"])), record) == Problem(reason, what)


def test_a_long_list_of_labels_is_shortened() -> None:
    problem = check_record(form_of(config(labels=[f"c{i}" for i in range(12)])), {"text": "t", "label": "z"})
    assert isinstance(problem, Problem)
    assert problem.what.endswith("(c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more)")


def test_a_response_is_a_text_and_not_a_class() -> None:
    form = form_of(config(prompt="p", response="r"))
    assert check_record(form, {"p": "2+2", "r": 4}) == ({"prompt": "2+2"}, "4")
    assert check_record(form, {"p": "say", "r": " hi "}) == ({"prompt": "say"}, " hi ")


def test_twenty_rows_a_file_are_described_and_all_are_counted() -> None:
    bad = BadRows()
    for line in reversed(range(1, 24)):
        bad.add("a.jsonl", line, Problem("empty_text", "empty"))
    bad.add("b.jsonl", 9, Problem("broken_json", "broken"))
    expected = [f"a.jsonl:{line}: empty" for line in range(4, 24)]
    assert bad.report() == [*expected, "a.jsonl: 3 more bad rows", "b.jsonl:9: broken"]
    assert bad.reasons == {"empty_text": 23, "broken_json": 1}


def test_sizes() -> None:
    enough: dict[SplitName, int] = {"train": 16, "validation": 8, "test": 8}
    assert size_problems(enough, {"train": 2, "validation": 2, "test": 1}, completion=False) == []
    assert size_problems(
        {"train": 16, "validation": 7, "test": 0}, {"train": 1, "validation": 2, "test": 0}, completion=False
    ) == [
        "validation has 7 usable rows; at least 8 are needed",
        "test has 0 usable rows; at least 8 are needed",
        "all rows of train have the same label; at least two classes are needed",
    ]
    assert size_problems(enough, {"train": 1, "validation": 1, "test": 1}, completion=True) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"template": "{text} {label} Answer:"},
        {"template": "{text} {stars}", "label": "stars"},
        {"prompt": "q", "response": "r", "template": "{prompt} {r}"},
    ],
)
def test_a_template_that_shows_the_answer_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="shows the model the answer"):
        form_of(DatasetConfig(name="a", path="a.jsonl", **settings))
