"""The report: what it says, that it stands alone, and that nothing in the data can break out of it."""

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from components.ensemble import report
from components.ensemble.report import render_report
from tests.ensemble.summary_example import GROUPS, NAMES, digest, example_figures, example_summary, plan_only_summary

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.shown, self.urls = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.urls += [value for key, value in attrs if key in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.urls += [value for key, value in attrs if key in ("src", "href", "xlink:href", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.shown.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.shown))

    @property
    def sections(self) -> list[str]:
        return [data for data in self.shown if data in SECTIONS]


SECTIONS = [
    "Groups",
    "Results on test rows",
    "Ensemble against the others",
    "Affinity",
    "Weights",
    "Training",
    "Cost",
    "Promotion",
    "Lineage",
]


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(example_summary(), example_figures())


def test_the_whole_report(html):
    page, summary = Page(html), example_summary()
    assert page.sections == SECTIONS
    assert page.tags.count("svg") == 5
    assert "The ensemble beats one multi-task adapter by 1.6 points" in page.text
    best = summary["average"]["ensemble"]["metric"]
    assert f"{100 * best['value']:.1f} % against" in page.text and "for +107.7 % FLOPs" in page.text
    for name in NAMES:
        assert f"{summary['results'][name]['multitask']['cross_entropy']['value']:.3f}" in page.text
        assert digest("dataset", name)[:12] in page.text
    assert "semidefinite relaxation and local search" in page.text
    assert "promoted : better than version 3" in page.text
    assert summary["mlflow"]["adapters"]["group-4"]["run_id"] in page.text
    assert '"id": "Qwen/Qwen2.5-0.5B"' in page.text


def test_it_stands_alone(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(page.tags)
    assert all(url.startswith(("#", "data:image/png;base64,")) for url in page.urls)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html
    assert len(page.ids) == len(set(page.ids))
    references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', html))
    assert references == set(page.ids)


def test_figures_follow_the_colours_of_the_page(html):
    svg = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--ink, #1f2733)" in svg and not re.search(r"(?<!, )#1f2733", svg)
    defined = set(re.findall(r"(--[a-z-]+):", html))
    assert set(re.findall(r"var\((--[a-z-]+)", html)) <= defined


def test_no_password_of_the_tracking_server(html):
    assert "https://mlflow.example.org" in html
    assert "sesame" not in html and "ada:" not in html


def poison(part: Any, text: str) -> Any:
    """``part`` with ``text`` after every string in it."""
    if isinstance(part, dict):
        return {key: poison(one, text) for key, one in part.items()}
    if isinstance(part, list):
        return [poison(one, text) for one in part]
    return part + text if isinstance(part, str) else part


def test_every_text_is_escaped():
    attack = "</td><script>alert(1)</script>\"'{{7*7}}"
    whole = example_summary()
    texts = ("name", "settings", "versions", "artifacts", "mlflow", "promotion")
    summary = {**whole, **{key: poison(whole[key], attack) for key in texts}}
    summary["datasets"] = [{**one, "digest": attack, "dropped": {attack: 3}} for one in whole["datasets"]]
    summary["cost"]["steps"] = poison(summary["cost"]["steps"], attack)
    summary["boosting"] = {attack: {"kept": 1, "validation_loss_before": None, "validation_loss_after": 0.5}}
    page = Page(render_report(summary, figures={}))
    assert "script" not in page.tags and "alert(1)" in page.text and "{{7*7}}" in page.text
    affinity = {"datasets": [attack], "matrix": [[1.0]], "subsets": attack}
    page = Page(render_report({"name": "x", "groups": [[attack]], "affinity": affinity}))
    assert "script" not in page.tags and page.text.count("alert(1)") == 4  # chip, both axes, the number of subsets


def test_a_search_without_an_end_and_texts_that_were_cut_are_told():
    summary = example_summary()
    page = Page(render_report(summary, figures={}))
    assert "ended when 20013 groups had been scored" in page.text
    assert page.text.count("7 train, 2 test") == sum(bool(one["truncated"]) for one in summary["datasets"]) > 0
    summary["partition"]["complete"] = True
    assert "had been scored" not in Page(render_report(summary, figures={})).text


def test_a_plan_has_groups_and_affinity_but_no_results():
    drawn = {name: example_figures()[name] for name in ("affinity", "groups")}
    page = Page(render_report(plan_only_summary(), drawn))
    assert page.sections == ["Groups", "Affinity", "Lineage"]
    assert "16 datasets in 5 groups" in page.text and "Nothing has been trained" in page.text
    assert page.tags.count("svg") == 2


def test_a_name_is_enough():
    page = Page(render_report({"name": "empty"}))
    assert "No results yet" in page.text and page.sections == ["Lineage"]


@pytest.mark.parametrize("key", [key for key in example_summary() if key != "name"])
def test_any_one_part_may_be_missing_or_null(key):
    whole = example_summary()
    if key not in ("datasets", "methods"):  # results are meaningless without these two
        Page(render_report({one: part for one, part in whole.items() if one != key}, figures={}))
        Page(render_report({**whole, key: None}, figures={}))
    else:
        bare = {one: part for one, part in plan_only_summary().items() if one != key}
        assert Page(render_report(bare, figures={})).sections == ["Groups", "Lineage"]


def test_parts_of_parts_may_be_missing():
    summary = copy.deepcopy(example_summary())
    del summary["partition"]["gain"], summary["partition"]["expected"], summary["partition"]["objective"]
    summary["cost"]["extra_flops_share"] = None
    del summary["cost"]["training_flops"], summary["mlflow"]["adapters"], summary["promotion"]["numbers"]
    summary["mlflow"]["tracking_uri"] = None
    del summary["results"]["boolq"]["per_dataset"], summary["comparisons"][0]["by_dataset"]["boolq"]
    page = Page(render_report(summary, figures={}))
    assert "% FLOPs" not in page.text and "p < 0.001)." in page.text
    assert "Promotion" in page.sections


@pytest.mark.parametrize(
    ("low", "high", "sentence", "tone"),
    [
        (0.001, 0.02, "The ensemble beats one multi-task adapter by 1.0 points", "good"),
        (-0.001, 0.02, "No clear difference between the ensemble and one multi-task adapter", "neutral"),
        (-0.02, -0.001, "The ensemble loses to one multi-task adapter by 1.0 points", "bad"),
    ],
)
def test_the_headline_claims_no_more_than_the_interval(low, high, sentence, tone):
    summary = example_summary()
    difference = -0.01 if high < 0 else 0.01
    one = {
        "baseline": "multitask",
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": 0.2,
        "by_dataset": {},
    }
    summary["comparisons"] = [{**summary["comparisons"][1]}, one]
    html = render_report(summary, figures={})
    assert sentence in Page(html).text and f'class="verdict {tone}"' in html


def test_without_multitask_the_first_comparison_makes_the_headline_and_without_any_none_does():
    summary = example_summary()
    summary["comparisons"] = [one for one in summary["comparisons"] if one["baseline"] == "start"]
    assert "beats start (theta*) by" in Page(render_report(summary, figures={})).text
    summary["comparisons"] = []
    assert "No baseline was trained in this run" in Page(render_report(summary, figures={})).text


def test_costs_are_added_by_step_and_memory_is_the_largest():
    rows = {one["step"]: one for one in report._cost_groups(example_summary()["cost"]["steps"])}
    assert rows["train"]["seconds"] == pytest.approx(410.5 + 380.5 + 350.5 + 320.5 + 290.5 + 3905)
    assert (rows["train"]["peak_memory_bytes"], rows["train"]["count"]) == (9.9e9, len(GROUPS) + 1)
    assert rows["train"]["flops"] == pytest.approx(5 * 1.62e16 + 8e16)
    assert (rows["extract"]["reused"], rows["prepare"]["parts"]) == (1, [])
