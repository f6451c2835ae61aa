"""Whether a new ensemble may replace the champion.

The gate reads one paired comparison, on the datasets both sides know and on the same test rows. Three conditions:

1. better on average: the point estimate of the difference is above zero;
2. not by luck: the lower end of its interval (95 %, paired bootstrap, with ``seed_noise``) is above minus ``margin``;
3. nobody pays for it: no dataset loses more than ``floor``, unless that may be luck: its own interval reaches zero.

Rows are not the only luck: the same ensemble trained with other seeds answers otherwise. Where ``seed_noise`` is known
(`loraloom validate` measures that of the accuracy), the interval is widened by it, and each of n datasets' own by the
root of n as much, as their luck hardly goes together. It is reckoned as between two independent trainings; a challenger
that took over adapters of the champion differs less, so the gate then errs on refusing.

Asking for a lower end above zero instead would refuse most honest small improvements on test sets of a few hundred
rows; the margin says how much risk of a small loss that is worth.

What is compared are exact answers. Where merged adapters answer instead, the verdict says what that costs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from components.config import RegistryConfig

NORMAL = 1.96  # standard deviations on either side that hold 95 %


class DatasetDifference(TypedDict):
    """Challenger minus reference in one dataset's metric, as a share, with its paired interval."""

    difference: float
    low: float
    high: float


class Comparison(TypedDict):
    """Challenger minus ``baseline`` on average and by dataset, as the evaluation's summary holds it."""

    baseline: str
    difference: float
    low: float
    high: float
    p_value: float
    by_dataset: Mapping[str, DatasetDifference]


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, why, and on which numbers."""

    decision: Literal["promoted", "refused", "manual", "unchanged"]
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def decide(
    settings: RegistryConfig,
    *,
    champion_version: str | None,
    champion: Comparison | None,
    multitask: Comparison | None,
    same_answers: bool = False,
) -> Verdict:
    """Decide on a challenger.

    Args:
        same_answers: it is the champion's ensemble, packed otherwise (merged adapters, router, bundled base).
        champion_version: of the champion that serves now; None where nothing does.
        champion: challenger minus champion; None where the two share no dataset.
        multitask: challenger minus one adapter on all datasets; None where that baseline was not trained.

    A first version has no champion to beat. It must beat the multi-task adapter, or be no worse by the margin and the
    floors, and then the reason says that it was promoted all the same; so it does where there is no baseline at all.
    """
    if same_answers:
        verdict = Verdict("promoted", f"it answers as champion version {champion_version} does, packed otherwise")
    elif champion_version is not None:
        verdict = _against_champion(settings, champion_version, champion and _widened(settings, champion))
    else:
        verdict = _first(settings, multitask and _widened(settings, multitask))
    if settings.promote == "manual":
        return Verdict("manual", f"registry.promote is manual; by itself: {verdict.reason}", verdict.numbers)
    return verdict


def with_served(verdict: Verdict, served: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """The verdict, and what will be answered otherwise than it was judged.

    The comparison is between exact answers; a dataset whose merged adapter hardly differs is answered by that one.

    Args:
        served: of those datasets, the test accuracy of ``exact`` and of ``merged`` answers, as shares.
    """
    if not served:
        return verdict
    exact, merged = (sum(one[mode] for one in served.values()) / len(served) for mode in ("exact", "merged"))
    many = f"{len(served)} dataset{'s' * (len(served) > 1)}"
    reason = (
        f"{verdict.reason}; judged by exact answers, but merged adapters answer for {many}: test accuracy there "
        f"{merged:.2%} instead of {exact:.2%}"
    )
    told = {"datasets": sorted(served), "exact": exact, "merged": merged}
    return Verdict(verdict.decision, reason, {**verdict.numbers, "served_merged": told})


def unchanged(version: str) -> Verdict:
    """The version serves, or has been judged against the one that does: nothing is decided."""
    return Verdict("unchanged", f"version {version} holds this ensemble, and has its verdict")


def _against_champion(settings: RegistryConfig, version: str, comparison: Comparison | None) -> Verdict:
    if comparison is None:
        return Verdict(
            "refused",
            f"it shares no dataset with champion version {version}, or that one's predictions are gone; decide by hand",
        )
    failures = _failures(settings, comparison)
    numbers = _numbers(settings, comparison)
    against = f"champion version {version}: {_stated(settings, comparison)}"
    if failures:
        return Verdict("refused", f"against {against}; {'; '.join(failures)}", numbers)
    return Verdict("promoted", f"better than {against}{_excused(settings, comparison)}", numbers)


def _first(settings: RegistryConfig, comparison: Comparison | None) -> Verdict:
    if comparison is None:
        return Verdict("promoted", "the first version, and there is no multi-task adapter to compare it with")
    failures = _failures(settings, comparison)
    numbers = _numbers(settings, comparison)
    against = f"the multi-task adapter: {_stated(settings, comparison)}"
    if not failures:
        return Verdict("promoted", f"the first version, better than {against}{_excused(settings, comparison)}", numbers)
    if not _failures(settings, comparison, must_be_better=False):
        return Verdict(
            "promoted",
            f"the first version, not better than {against}; promoted all the same, because nothing serves yet and it "
            f"is within the margin ({_points(settings.margin)}) and the floors ({_points(settings.floor)})"
            f"{_excused(settings, comparison)}",
            numbers,
        )
    return Verdict("refused", f"the first version, against {against}; {'; '.join(failures)}", numbers)


def _widened(settings: RegistryConfig, comparison: Comparison) -> Comparison:
    """The comparison with the noise of two seeds, one on either side, in its intervals."""
    if not settings.seed_noise:
        return comparison  # to the last digit: the margin may be met exactly
    noise = NORMAL * math.sqrt(2) * settings.seed_noise
    own = noise * math.sqrt(len(comparison["by_dataset"]))
    by_dataset: dict[str, DatasetDifference] = {}
    for name, one in comparison["by_dataset"].items():
        low, high = _wider(one["difference"], one["low"], one["high"], own)
        by_dataset[name] = {**one, "low": low, "high": high}
    low, high = _wider(comparison["difference"], comparison["low"], comparison["high"], noise)
    return {**comparison, "low": low, "high": high, "by_dataset": by_dataset}


def _wider(value: float, low: float, high: float, noise: float) -> tuple[float, float]:
    """The interval's ends with another noise, in quadrature, on either side."""
    return value - math.hypot(value - low, noise), value + math.hypot(value - high, noise)


def _failures(settings: RegistryConfig, comparison: Comparison, *, must_be_better: bool = True) -> list[str]:
    failures = []
    if must_be_better and comparison["difference"] <= 0:
        failures.append("not better on average")
    if comparison["low"] <= -settings.margin:
        failures.append(f"the lower end is not above the margin of {_points(-settings.margin)}")
    for name, one in _below_floor(settings, comparison):
        if one["high"] < 0:
            failures.append(f"{name} loses {_points(-one['difference'])}, more than {_points(settings.floor)}")
    return failures


def _excused(settings: RegistryConfig, comparison: Comparison) -> str:
    """The losses beyond the floor that may be luck, for the reason; empty without any."""
    lost = [
        f"; {name} loses {_points(-one['difference'])}, which may be noise (up to {_points(one['high'])})"
        for name, one in _below_floor(settings, comparison)
        if one["high"] >= 0
    ]
    return "".join(lost)


def _below_floor(settings: RegistryConfig, comparison: Comparison) -> list[tuple[str, DatasetDifference]]:
    return [
        (name, one) for name, one in sorted(comparison["by_dataset"].items()) if one["difference"] < -settings.floor
    ]


def _numbers(settings: RegistryConfig, comparison: Comparison) -> dict[str, Any]:
    by_dataset = {name: dict(one) for name, one in comparison["by_dataset"].items()}
    return {
        **comparison,
        "by_dataset": by_dataset,
        "margin": settings.margin,
        "floor": settings.floor,
        "seed_noise": settings.seed_noise,
    }


def _stated(settings: RegistryConfig, comparison: Comparison) -> str:
    low, high = _points(comparison["low"]), _points(comparison["high"])
    luck = "by rows and seeds" if settings.seed_noise else "by rows alone: registry.seed_noise is 0"
    many = f"{len(comparison['by_dataset'])} datasets"
    return f"{comparison['difference'] * 100:+.2f} points on {many} [{low}, {high}, {luck}]"


def _points(share: float) -> str:
    return f"{share * 100:.2f} points"
