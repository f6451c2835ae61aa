"""What is said in plain words, and when nothing may be said."""

from typing import Any

import pytest

from components.validation.figures import draw
from components.validation.report import render
from components.validation.verdict import rank_of, verdict
from tests.ensemble.test_report import Page
from tests.validation.example import example_facts


def interval(low: float, value: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("reliability", "pearson", "rank"),
    [
        (interval(0.6, 0.8, 0.9), interval(0.2, 0.5, 0.7), "better than chance"),
        (interval(0.6, 0.8, 0.9), interval(-0.2, 0.1, 0.4), "by chance"),
        (interval(0.6, 0.8, 0.9), interval(-0.7, -0.5, -0.2), "the wrong way"),
        (interval(0.4, 0.8, 0.9), interval(-0.2, 0.1, 0.4), "not measurable"),
        (interval(0.4, 0.8, 0.9), interval(0.2, 0.5, 0.7), "better than chance"),  # noise only lowers a correlation
        (None, interval(-0.2, 0.1, 0.4), "not measurable"),
        (interval(0.6, 0.8, 0.9), None, "not measurable"),
    ],
)
def test_ranks(reliability: Any, pearson: Any, rank: str) -> None:
    assert rank_of(reliability, pearson) == rank


def test_the_verdict_says_for_which_datasets_the_estimates_are_good() -> None:
    said = verdict(example_facts())
    assert said[0].startswith("Over 10 random subsets of 2, 3 fine-tunes each, estimated and true losses correlate")
    assert "The estimates rank subsets better than chance for 2 of 4 datasets: sst2 and trec." in said
    assert "For cola and wic they carry no information that could be seen." in said
    assert (
        "A perfect prediction would seem 2.0 % off: so noisy are the fine-tunes that estimates are compared with."
        in said
    )
    assert any(sentence.startswith("The chosen groups have a clearly lower test loss against one") for sentence in said)
    assert any("no clear difference in test loss against 2 random partitions" in sentence for sentence in said)
    assert any("deviation of 1.23 points. As registry.seed_noise (0.0123)" in sentence for sentence in said)


def test_where_the_truth_is_noise_nothing_is_claimed() -> None:
    facts = example_facts()
    facts["overall"]["reliability"] = interval(0.1, 0.45, 0.6)
    said = verdict(facts)
    assert said[0].startswith("Not measurable here: whether the estimates rank subsets")
    assert "0.45 (0.10 to 0.60)" in said[0]
    assert not any("correlate" in sentence for sentence in said)


def test_too_few_subsets_are_not_taken_for_noise() -> None:
    facts = example_facts()
    facts["overall"]["reliability"] = None
    said = verdict(facts)[0]
    assert said.endswith("it could not be estimated: there are too few of them. More subsets would tell.")


def test_groups_that_are_one_are_not_compared_with_one() -> None:
    facts = example_facts()
    facts["partitions"][1]["against_chosen"] = None
    assert "The chosen groups are those of one group: there is nothing to compare." in verdict(facts)


def test_costs_are_told_in_whole_numbers_and_by_the_clock_where_it_was_measured() -> None:
    facts = example_facts()
    facts["cost"]["ratio_own"] = 1754.0
    assert verdict(facts)[-1].endswith("as many as were estimated 1,754 times (by the wall clock 80 times).")
    facts["cost"]["seconds_ratio_own"] = None
    assert verdict(facts)[-1].endswith("as many as were estimated 1,754 times.")


def test_the_page_shows_it_all_and_needs_nothing_else() -> None:
    facts = {**example_facts()}
    facts["verdict"] = verdict(facts)
    page = Page(render({"name": "x", "validation": facts}))
    assert page.tags.count("svg") == 3
    assert all(sentence in page.text for sentence in facts["verdict"])
    assert "spectral clustering" in page.text
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    images = draw(facts)
    assert set(images) == {"agreement", "first_order", "partitions"}
    assert not any(b"mathdefault" in image.svg for image in images.values())


def test_the_page_does_without_what_is_not_known() -> None:
    facts = example_facts()
    facts["overall"]["reliability"] = facts["overall"]["noise_error"] = None
    facts["overall"]["predictors"]["surrogate"]["pearson"] = None
    facts["cost"]["estimating"]["seconds"] = facts["cost"]["seconds_ratio_own"] = None
    facts["verdict"] = verdict(facts)
    assert "Not measurable here" in Page(render({"name": "x", "validation": facts}, figures={})).text
