"""The three conditions, each failing alone, and the first version's own rules."""

import pytest

from components.config import RegistryConfig
from components.registry.gate import Verdict, decide, unchanged, with_served

SETTINGS = RegistryConfig(margin=0.005, floor=0.03)


def comparison(difference=0.01, low=-0.004, by_dataset=(0.03, -0.01), baseline="champion"):
    differences = {
        f"d{i}": {"difference": one, "low": one - 0.01, "high": one + 0.01} for i, one in enumerate(by_dataset)
    }
    return {
        "baseline": baseline,
        "difference": difference,
        "low": low,
        "high": 0.02,
        "p_value": 0.2,
        "by_dataset": differences,
    }


def test_better_within_margin_and_floors_is_promoted():
    verdict = decide(SETTINGS, champion_version="3", champion=comparison(), multitask=None)
    assert verdict.decision == "promoted"
    interval = "-0.40 points, 2.00 points, by rows alone: registry.seed_noise is 0"
    assert verdict.reason == f"better than champion version 3: +1.00 points on 2 datasets [{interval}]"
    assert verdict.numbers["margin"] == 0.005 and verdict.numbers["by_dataset"]["d1"]["difference"] == -0.01


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"difference": 0.0}, "not better on average"),
        ({"difference": -0.001}, "not better on average"),
        ({"low": -0.005}, "the lower end is not above the margin of -0.50 points"),
        ({"by_dataset": (0.06, -0.031)}, "d1 loses 3.10 points, more than 3.00 points"),
    ],
)
def test_each_condition_refuses_alone(changed, why):
    verdict = decide(SETTINGS, champion_version="3", champion=comparison(**changed), multitask=comparison())
    assert verdict.decision == "refused"
    assert verdict.reason.split("]; ")[1] == why


def test_a_dataset_at_its_floor_is_not_below_it():
    champion = comparison(by_dataset=(0.05, -0.03))
    assert decide(SETTINGS, champion_version="3", champion=champion, multitask=None).decision == "promoted"


@pytest.mark.parametrize(("high", "decision"), [(0.001, "promoted"), (-0.001, "refused")])
def test_a_loss_counts_beyond_its_noise_only(high, decision):
    champion = comparison(by_dataset=(0.12, -0.04))
    champion["by_dataset"]["d1"]["high"] = high
    verdict = decide(SETTINGS, champion_version="3", champion=champion, multitask=None)
    assert verdict.decision == decision
    excused = "; d1 loses 4.00 points, which may be noise (up to 0.10 points)"
    assert verdict.reason.endswith(excused) == (decision == "promoted")


def test_nothing_in_common_with_the_champion_is_for_a_person():
    verdict = decide(SETTINGS, champion_version="3", champion=None, multitask=comparison())
    assert verdict.decision == "refused" and "shares no dataset with champion version 3" in verdict.reason


@pytest.mark.parametrize(
    ("multitask", "decision", "why"),
    [
        (comparison(), "promoted", "the first version, better than the multi-task adapter: +1.00 points"),
        (comparison(difference=-0.001), "promoted", "promoted all the same, because nothing serves yet"),
        (None, "promoted", "there is no multi-task adapter to compare it with"),
        (comparison(difference=-0.02, low=-0.03), "refused", "not better on average; the lower end is not above"),
        (comparison(by_dataset=(0.1, -0.05)), "refused", "d1 loses 5.00 points"),
    ],
)
def test_the_first_version_meets_the_multitask_adapter(multitask, decision, why):
    verdict = decide(SETTINGS, champion_version=None, champion=None, multitask=multitask)
    assert (verdict.decision, why in verdict.reason) == (decision, True), verdict.reason


def test_manual_says_what_the_gate_would_have_done():
    settings = RegistryConfig(promote="manual")
    verdict = decide(settings, champion_version="3", champion=comparison(), multitask=None)
    assert verdict.decision == "manual" and verdict.numbers["difference"] == 0.01
    assert verdict.reason.startswith("registry.promote is manual; by itself: better than champion version 3")


def test_unchanged():
    assert unchanged("4").decision == "unchanged" and "version 4" in unchanged("4").reason


def test_the_same_answers_packed_otherwise_are_promoted():
    none_better = comparison(difference=0.0, low=0.0, by_dataset=(0.0, 0.0))
    verdict = decide(SETTINGS, champion_version="3", champion=none_better, multitask=None, same_answers=True)
    assert verdict.decision == "promoted"
    assert verdict.reason == "it answers as champion version 3 does, packed otherwise"
    by_hand = RegistryConfig(promote="manual")
    verdict = decide(by_hand, champion_version="3", champion=none_better, multitask=None, same_answers=True)
    assert verdict.decision == "manual"


def test_the_verdict_says_what_is_answered_otherwise_than_judged():
    verdict = Verdict("promoted", "better", {"difference": 0.01})
    assert with_served(verdict, {}) is verdict
    told = with_served(verdict, {"b": {"exact": 0.5, "merged": 0.4}, "a": {"exact": 0.9, "merged": 0.8}})
    assert told.decision == "promoted"
    assert told.reason == (
        "better; judged by exact answers, but merged adapters answer for 2 datasets: test accuracy there 60.00% "
        "instead of 70.00%"
    )
    assert told.numbers["difference"] == 0.01
    served = told.numbers["served_merged"]
    assert served["datasets"] == ["a", "b"]
    assert (served["exact"], served["merged"]) == pytest.approx((0.7, 0.6))


def test_the_interval_holds_the_noise_between_seeds():
    noisy = SETTINGS.model_copy(update={"seed_noise": 0.004})
    verdict = decide(noisy, champion_version="3", champion=comparison(), multitask=None)
    assert verdict.decision == "refused" and "the lower end is not above the margin" in verdict.reason
    assert ", by rows and seeds]" in verdict.reason
    # 1.96 standard deviations of the difference of two seeds, in quadrature with the 0.014 and 0.010 of the rows
    assert verdict.numbers["low"] == pytest.approx(0.01 - (0.014**2 + 2 * (1.96 * 0.004) ** 2) ** 0.5)
    assert verdict.numbers["high"] == pytest.approx(0.01 + (0.010**2 + 2 * (1.96 * 0.004) ** 2) ** 0.5)
    assert decide(noisy, champion_version=None, champion=None, multitask=comparison()).decision == "refused"
    clear = comparison(difference=0.03, low=0.016)
    assert decide(noisy, champion_version="3", champion=clear, multitask=None).decision == "promoted"


def test_a_datasets_loss_may_be_the_luck_of_seeds():
    noisy = SETTINGS.model_copy(update={"seed_noise": 0.01})
    lost = comparison(difference=0.03, low=0.025, by_dataset=(0.1, -0.04))
    assert decide(SETTINGS, champion_version="3", champion=lost, multitask=None).decision == "refused"
    verdict = decide(noisy, champion_version="3", champion=lost, multitask=None)
    assert verdict.decision == "promoted" and "d1 loses 4.00 points, which may be noise" in verdict.reason
    # of one of two datasets: the root of two as much as of the average, on either side
    assert verdict.numbers["by_dataset"]["d1"]["high"] == pytest.approx(-0.04 + (0.01**2 + 4 * 0.0196**2) ** 0.5)
