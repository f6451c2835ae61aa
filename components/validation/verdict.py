"""What a validation comes to, in plain words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from components.validation.labels import PARTITIONS, PREDICTORS

NEEDED = 0.5  # of the reliability's lower bound: below it, correlations are mostly about seeds
Rank = Literal["better than chance", "by chance", "the wrong way", "not measurable"]
ONE_FIFTH_PERCENT = 0.002  # the distance that published first-order errors are given for


def rank_of(reliability: Mapping[str, float] | None, pearson: Mapping[str, float] | None) -> Rank:
    """What can be said of the ranking of one dataset's subsets, from the two intervals.

    Noise only lowers a correlation: one that is clear in spite of it counts. That there is none takes a reliable truth.
    """
    if pearson is not None and pearson["low"] > 0:
        return "better than chance"
    if pearson is not None and pearson["high"] < 0:
        return "the wrong way"
    return "not measurable" if pearson is None or reliability is None or reliability["low"] < NEEDED else "by chance"


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Sentences about the facts that `judge` has put together, the most important first."""
    return [
        *_ranking(found),
        *_by_dataset(found["by_dataset"]),
        *_error(found["overall"]),
        *_first_order(found["linearity"]),
        *_partitions(found["partitions"]),
        *_cost(found["cost"]),
    ]


def _ranking(found: Mapping[str, Any]) -> Iterator[str]:
    overall, count = found["overall"], found["counts"]["random"]
    shown = f"{count} random subsets of {found['subset_size']}, {found['seeds']} fine-tunes each"
    share = overall["reliability"]
    if share is None or share["low"] < NEEDED:
        told = "it could not be estimated" if share is None else f"it is {_range(share)}"
        why, more = "there are too few of them", "More subsets" if share is None else "More subsets or seeds"
        if share is not None and share["value"] < NEEDED:
            why = "fine-tunes of one subset differ about as much as subsets do"
            more = "More seeds, more validation rows or a lower learning rate"
        yield (
            f"Not measurable here: whether the estimates rank subsets ({shown}). The reliability of the true losses "
            f"would have to be above {NEEDED} at its lower bound, and {told}: {why}. {more} would tell."
        )
        return
    ours = overall["predictors"]["surrogate"]
    yield (
        f"Over {shown}, estimated and true losses correlate by {_range(ours['pearson'])}; corrected for the noise of "
        f"fine-tuning (reliability {_range(share)}) by {_range(ours['corrected_pearson'])}."
    )
    for other, gain in overall["advantages"].items():
        if gain is not None:
            word = "above" if gain["low"] > 0 else "below" if gain["high"] < 0 else "not clearly apart from"
            yield f"That is {word} the {PREDICTORS[other]} (difference {_range(gain)})."


def _by_dataset(by_dataset: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    ranks: dict[str, list[str]] = {}
    for name, one in by_dataset.items():
        ranks.setdefault(one["rank"], []).append(name)
    better = ranks.get("better than chance", [])
    named = f": {_and(better)}" if better else ""
    yield f"The estimates rank subsets better than chance for {len(better)} of {len(by_dataset)} datasets{named}."
    if nothing := ranks.get("by chance"):
        yield f"For {_and(nothing)} they carry no information that could be seen."
    if wrong := ranks.get("the wrong way"):
        yield f"For {_and(wrong)} they rank the wrong way round."
    if unknown := ranks.get("not measurable"):
        yield f"Not measurable for {_and(unknown)}: their fine-tunes are too noisy, or too few."


def _error(overall: Mapping[str, Any]) -> Iterator[str]:
    ours, moved, flat = (overall["predictors"][name]["relative_error"] for name in ("surrogate", "shifted", "constant"))
    yield (
        f"Estimated losses are {100 * ours['value']:.1f} % off on average, {100 * moved['value']:.1f} % once each "
        f"dataset's mean is put right; each dataset's own mean, whatever the subset, would be "
        f"{100 * flat['value']:.1f} % off."
    )
    if overall["noise_error"] is not None:
        yield (
            f"A perfect prediction would seem {100 * overall['noise_error']['value']:.1f} % off: so noisy are the "
            "fine-tunes that estimates are compared with."
        )


def _first_order(linearity: Mapping[str, Any]) -> Iterator[str]:
    near = [one for one in linearity["mean"] if one["distance"] <= ONE_FIFTH_PERCENT]
    if near:
        one = near[-1]
        yield (
            f"At a relative distance of {100 * one['distance']:g} % the first-order margin is "
            f"{100 * one['unprojected']['relative']:.2f} % off ({100 * one['projected']['relative']:.2f} % projected); "
            f"the solutions themselves are {100 * linearity['solution_distance']:.2g} % from there, fine-tunes "
            f"{100 * linearity['trained_distance']:.2g} % from where they begin."
        )


def _partitions(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    drawn = sum(one["name"].startswith("random-") for one in results)
    told = {name: PARTITIONS[name] for name in ("one", "each", "spectral")}
    told["random"] = f"{drawn} random partitions" if drawn > 1 else "a random partition"
    for one in results:
        if one["name"] not in told:
            continue
        name, apart = told[one["name"]], one["against_chosen"]
        if apart is None:
            yield f"The chosen groups are those of {name}: there is nothing to compare."
            continue
        word = "no clear difference in test loss" if not apart["clear"] else (
            "a clearly lower test loss" if apart["value"] > 0 else "a clearly higher test loss"
        )  # fmt: skip
        yield (
            f"The chosen groups have {word} against {name} "
            f"({apart['value']:+.4f} ± {apart['noise']:.4f} of the label entropy)."
        )
    spread = results[0]["accuracy_spread"]
    yield (
        f"Between seeds the average accuracy of the chosen groups' own adapters has a standard deviation of "
        f"{100 * spread:.2f} points. As registry.seed_noise ({spread:.4f}) it keeps the gate from taking luck for "
        "progress; an ensemble's own is not measured here."
    )


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    clock = cost["seconds_ratio_own"]
    yield (
        f"Fine-tuning 50 subsets of 0.3 n would take {cost['ratio_published']:,.0f} times the FLOPs of estimating all "
        f"{cost['subsets']}, fine-tuning as many as were estimated {cost['ratio_own']:,.0f} times"
        f"{f' (by the wall clock {clock:,.0f} times)' if clock else ''}."
    )


def _range(one: Mapping[str, float] | None) -> str:
    return "an unknown amount" if one is None else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
