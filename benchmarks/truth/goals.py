"""The method's claims beside what was published and what the studies found, as Markdown."""

from typing import Any

from benchmarks.truth.markdown import Found, grid, interval, mean, percent
from benchmarks.truth.names import BASELINES, ENSEMBLE, FROM_START, GROUPS
from benchmarks.truth.one_fifth import one_fifth, together
from components.config import BoostingConfig
from components.validation.verdict import ONE_FIFTH_PERCENT

ESTIMATING, PLAN = "estimating, 50 subsets, FLOPs", "plan, 50 subsets, FLOPs"
TRAININGS = 50 * 0.3  # of one multi-task adapter: what fine-tuning those subsets costs


def goals(found: dict[str, Found], engine: Found | None) -> str:
    """The table of goals, as far as its studies have run.

    Args:
        found: the studies' numbers by name.
        engine: ``benchmarks/results.json``, whose counts of large datasets are the first model's; None for another.
    """
    rows = [
        *(_first_order(found["first_order"]) if "first_order" in found else []),
        *(_agreement(found["study"]) if "study" in found else []),
        *(_cost(found["study"], engine) if "study" in found else []),
        *(_controls(found["controls"], engine) if "controls" in found else []),
        *(_boosting(found["boosting"]) if "boosting" in found else []),
    ]
    return "\n".join(["## Goals", "", *grid(["claim", "published", "goal", "measured", "met"], rows)])


def _first_order(found: Found) -> list[list[str]]:
    rows = []
    for base, one in found.items():
        errors = [one_fifth(subset) for subset in one["subsets"]]
        squared, plain = (mean([e["unprojected"][key] for e in errors]) for key in ("squared", "relative"))
        told = f"{percent(squared)} % as published (squared), {percent(plain)} % root mean square"
        told += f", for all datasets together {percent(together(one['subsets']))} %"
        claim = f"first-order error at relative distance {100 * ONE_FIFTH_PERCENT:g} %, {base}"
        published = "< 3 %" if base.startswith("nf4") else "< 1 %"
        rows.append([claim, published, "< 1 %", told, _met(squared < 0.01)])
    return rows


def _agreement(found: Found) -> list[list[str]]:
    ours, share = found["overall"]["predictors"]["surrogate"], found["overall"]["reliability"]
    corrected, off, noise = ours["corrected_pearson"], ours["relative_error"], found["overall"]["noise_error"]
    correlation = (
        f"{interval(corrected)}; raw {interval(ours['pearson'])}, Spearman {interval(ours['spearman'])}, "
        f"reliability {interval(share)}"
    )
    error = f"{interval(off, 100)} %; a perfect prediction {interval(noise, 100)} %"
    return [
        ["estimated against true loss, relative error", "< 5 %", "< 3 %", error, _met(off["value"] < 0.03)],
        ["Pearson correlation with true loss, centred, corrected", "not reported", ">= 0.8", correlation,
         _reached(corrected, 0.8)],
    ]  # fmt: skip


def _cost(found: Found, engine: Found | None) -> list[list[str]]:
    own = found["cost"]
    ratio = own["ratio_published"]
    told = f"at {found['rows']['train']} rows a dataset {ratio:.0f} x, at all {own['subsets']} subsets "
    told += f"{own['ratio_own']:.0f} x"
    if engine:
        estimating, plan = _counted(engine, ESTIMATING), _counted(engine, PLAN)
        ratio = estimating["ratio"]
        told = (
            f"{ratio:.0f} x ({estimating['note'].split(';')[0]}), {plan['ratio']:.0f} x with the search for a "
            f"partition; here, {told}"
        )
    claim = "fine-tuning 50 subsets of 0.3 n against estimating, FLOPs"
    return [[claim, "105 x", "> 105 x", told, _met(ratio > 105)]]


def _counted(engine: Found, name: str) -> dict[str, Any]:
    """What one part of the plan costs against fine-tuning 50 subsets, on all datasets whole."""
    return next(row for row in engine["rows"]["plan_cost"] if row["name"] == name)


def _controls(found: Found, engine: Found | None) -> list[list[str]]:
    ours, rows = found["methods"].get(ENSEMBLE, {}), []
    others = [other for other in BASELINES if f"against {other}" in ours]  # a study that goes on lacks some
    for other in others:
        apart: dict[str, Any] = ours[f"against {other}"]["metric"]
        told = f"{100 * apart['value']:+.2f} ± {100 * apart['noise']:.2f} points, {found['seeds']} seeds"
        name = {FROM_START: "multi-task, from theta*"}.get(other, other)
        published = "up to +10 %" if other.startswith("multi") else "not reported"
        rows.append([f"test metric against {name}", published, "above", told, _met(apart["value"] > apart["noise"])])
    if not rows:
        return []
    unit = ours["flops"] / ours["relative_flops"]
    extra, alone = ((found["methods"][name]["flops"] + found["plan_flops"]) / unit - 1 for name in (ENSEMBLE, GROUPS))
    told = (
        f"{100 * extra:+.0f} % at {found['rows']['train']} rows a dataset, {100 * alone:+.0f} % without the multi-task "
        f"member, {100 * found['plan_flops'] / unit:.0f} % for solver and search"
    )
    if engine:
        plan = _counted(engine, PLAN)
        told += (
            "; warm start, look-ahead, extraction, solver and search alone "
            f"{100 * plan['value'] * TRAININGS / plan['baseline']:+.1f} % ({plan['note'].split(';')[0]})"
        )
    return [*rows, ["FLOPs over one multi-task adapter, raw start", "9 %", "<= 5 %", told, _met(extra <= 0.05)]]


def _boosting(found: Found) -> list[list[str]]:
    rows = []
    for method, one in found.items():
        if "mean" not in one:  # of a single seed
            continue
        train, test = (one["mean"][f"always: {split} error"] for split in ("train", "test"))
        before = mean([seed["before"]["train error"] for seed in one["seeds"]])
        told = (
            f"{100 * train['value'] / before:+.1f} % training error, {100 * test['value']:+.2f} ± "
            f"{100 * test['noise']:.2f} points of test error"
        )
        claim, goal = f"boosting's first step, {method}", "better on test, or off by default"
        met = "yes" if test["value"] + test["noise"] < 0 else _met(False) if BoostingConfig().steps else "off"
        rows.append([claim, "-18 % training error, +0.4 % test", goal, told, met])
    return rows


def _reached(one: Found | None, goal: float) -> str:
    """By the value, and whether the interval agrees."""
    if one is None:
        return "unknown"
    sure = one["low"] >= goal or one["high"] < goal
    return _met(one["value"] >= goal) + ("" if sure else ", not clearly")


def _met(holds: bool) -> str:
    return "yes" if holds else "no"
