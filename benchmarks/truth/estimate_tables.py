"""Tables on estimates and the fine-tunes that they are compared with, as Markdown."""

from collections.abc import Sequence

from benchmarks.truth.markdown import Found, grid, heading, interval, mean, percent
from components.validation.labels import PARTITIONS, PREDICTORS


def study(found: Found) -> str:
    """Ranking, error, partitions and cost of one validation."""
    overall, counts = found["overall"], found["counts"]
    rows = []
    for name, told in PREDICTORS.items():
        one = overall["predictors"][name]
        keys = ("pearson", "corrected_pearson", "spearman", "corrected_spearman", "dataset_mean")
        off = one.get("relative_error")
        rows.append([told, *(interval(one[key]) for key in keys), interval(off, 100) if off else ""])
    rows.append(
        ["a perfect prediction, for the noise of the fine-tunes", *[""] * 5, interval(overall["noise_error"], 100)]
    )
    head = [
        "predictor",
        "Pearson",
        "corrected",
        "Spearman",
        "corrected",
        "each dataset alike",
        "relative error, %",
    ]
    ahead = ", ".join(f"{PREDICTORS[name]} {interval(gain)}" for name, gain in overall["advantages"].items())
    parts = [
        "## Estimates against real fine-tunes",
        "",
        heading(found),
        f"{counts['random']} random subsets of {found['subset_size']} datasets and the groups of "
        f"{len(found['groups'])} partitions, {found['seeds']} fine-tunes each, "
        f"{counts['subsets'] * found['seeds']} in all.",
        f"Reliability of the true losses (mean over seeds): {interval(overall['reliability'])}.",
        "Correlations over all (subset, dataset) cells, losses centred for each dataset, 95 % interval by bootstrap",
        "over subsets: it tells of other subsets and seeds, not of other datasets. Each dataset alike: the mean of the",
        "datasets' own correlations. A similarity counts as the prediction that alike is good company.",
        "",
        *grid(head, rows),
        "",
        f"Advantage of the surrogate's Pearson correlation: over {ahead}.",
        "",
        "By dataset, over the random subsets that hold it; true loss as a share of the label entropy:",
        "",
        *by_dataset(found),
        "",
        "True results by each dataset's own adapter, losses as shares of the label entropy; a difference is clear",
        "where it is beyond the noise between seeds, and for random partitions between those drawn.",
        "",
        *partitions(found["partitions"]),
        "",
        cost(found["cost"]),
        "",
        "In words:",
        "",
        *(f"- {sentence}" for sentence in found["verdict"]),
    ]
    return "\n".join(parts)


def by_dataset(found: Found) -> list[str]:
    """What can be said of single datasets: where little is learned, the loss is near 1 or above."""
    rows = []
    for name, one in found["by_dataset"].items():
        true = mean([mean(cell["true"]) for cell in found["cells"] if cell["random"] and cell["dataset"] == name])
        told = [interval(one[key]) for key in ("reliability", "pearson", "corrected_pearson")]
        rows.append([name, f"{true:.2f}", *told, percent(one["relative_error"]), one["rank"]])
    head = ["dataset", "true loss", "reliability", "Pearson", "corrected", "relative error, %", "estimates rank"]
    return grid(head, rows)


def partitions(found: Sequence[Found]) -> list[str]:
    """The partitions' true results."""
    rows = []
    for one in found:
        if one["name"] in PARTITIONS:
            apart = one["against_chosen"]
            told = (
                ""
                if apart is None
                else f"{apart['value']:+.4f} ± {apart['noise']:.4f}{' (clear)' if apart['clear'] else ''}"
            )
            losses = [f"{one[key]:.4f}" for key in ("estimated", "validation", "test")]
            rows.append([PARTITIONS[one["name"]], str(one["adapters"]), *losses, percent(one["accuracy"]), told])
    head = [
        "partition",
        "adapters",
        "estimated",
        "validation",
        "test",
        "accuracy, %",
        "test loss minus the chosen one's",
    ]
    return grid(head, rows)


def cost(found: Found) -> str:
    """What estimating costs against fine-tuning."""
    estimating, tuned = found["estimating"], found["fine_tuning"]
    clock = f" and {estimating['seconds'] / 60:.0f} minutes" if estimating["seconds"] else ""
    hours = f" in {tuned['seconds'] / 3600:.1f} hours, added up" if tuned["seconds"] else ""
    own = f", by the wall clock {found['seconds_ratio_own']:,.0f} times" if found["seconds_ratio_own"] else ""
    return (
        f"Estimating all {found['subsets']} subsets took {estimating['flops']:.3g} FLOPs{clock} (warm start, "
        f"look-ahead, extraction, and {found['solver']:.3g} of the solver); the fine-tunes above took "
        f"{tuned['flops']:.3g}{hours}. Fine-tuning 50 subsets of 0.3 n would take {found['ratio_published']:.0f} times "
        f"the FLOPs of estimating, fine-tuning as many as were estimated {found['ratio_own']:,.0f} times{own}."
    )


def sizes(found: Found) -> str:
    """How well estimates tell the losses of subsets of one size and another."""
    rows = []
    for size, one in sorted(found.items(), key=lambda item: int(item[0])):
        ours, flat = one["surrogate"], one["constant"]["relative_error"]
        counted = [str(one["counts"]["random"]), str(one["seeds"]), interval(one["reliability"])]
        ranked = [interval(ours[key]) for key in ("pearson", "corrected_pearson")]
        off = [interval(error, 100) for error in (ours["relative_error"], flat, one["noise_error"])]
        rows.append([size, *counted, *ranked, *off])
    head = [
        "datasets",
        "subsets",
        "fine-tunes each",
        "reliability",
        "Pearson",
        "corrected",
        "relative error, %",
        "of each dataset's mean",
        "of a perfect prediction",
    ]
    return "\n".join(
        [
            "## Subsets of other sizes",
            "",
            heading(*found.values()),
            "Random subsets of each number of datasets, those of the study among them. Few fine-tunes leave more of",
            "their noise in correlations and errors; only the corrected correlation is free of it. A dataset's mean",
            "comes the nearer the fewer losses it is the mean of.",
            "",
            *grid(head, rows),
        ]
    )


def ablations(found: Found) -> str:
    """What each choice does to the estimates."""
    rows = []
    for name, one in found.items():
        rows.append(
            [name, interval(one["reliability"]), interval(one["pearson"]), interval(one["corrected_pearson"]),
             interval(one["relative_error"], 100), f"{one['model_flops']:.2e}"]
        )  # fmt: skip
    head = ["setting", "reliability", "Pearson", "corrected", "relative error, %", "FLOPs"]
    about = next(iter(found.values()))
    return "\n".join(
        [
            "## What each choice does to the estimates",
            "",
            heading(*found.values()),
            f"{about['counts']['random']} random subsets, {about['seeds']} fine-tunes each.",
            "All are judged by the default's fine-tunes. With another warm start (look-ahead as long, if not told) or",
            "rank, those began elsewhere: there the error contains the difference between the two starts. FLOPs: warm",
            "start, look-ahead and extraction, without the solver's.",
            "",
            *grid(head, rows),
        ]
    )


def affinities(found: Found) -> str:
    """What groups lose by the affinity they are made of."""

    def told(one: Found, key: str) -> str:
        apart = f" ± {one[key]['spread']:.4f}" if one["samples"] > 1 else ""
        return f"{one[key]['mean']:.4f}{apart}"

    rows = [
        [one["affinity"], f"{one['subsets'] or '-'}", told(one, "rounded"), told(one, "searched")]
        for one in found["rows_of_table"]
    ]
    return "\n".join(
        [
            "## Which affinity",
            "",
            heading(found),
            "By how much the estimated loss of groups rounded from the relaxation of an affinity is above that of the",
            "best partition into as many (share of the label entropy, mean over 2 to n - 1 groups), and the same after",
            f"a local search. Samples of subsets: mean and standard deviation of {found['draws']}.",
            "",
            *grid(["affinity", "subsets", "rounded", "after a search"], rows),
        ]
    )


def calibration(found: Found) -> str:
    """What a few real fine-tunes gain for the estimates."""
    ways = {"estimates": "as they are", "shifted": "shifted", "scaled": "shifted and scaled", "means": "means alone"}
    rows = [
        [f"{one['subsets']}", f"{one['cost']:.1f}", *(f"{100 * one[way]:.2f}" for way in ways)]
        for one in found["rows_of_table"]
    ]
    return "\n".join(
        [
            "## Calibrating with real fine-tunes",
            "",
            heading(found),
            f"Relative error in percent on the other random subsets, mean over {found['draws']} draws of those that",
            "are fine-tuned once to calibrate with; their FLOPs by those of all estimates. Means alone: each dataset's",
            "mean in those fine-tunes, without any estimate.",
            "",
            *grid(["fine-tunes", "FLOPs", *ways.values()], rows),
        ]
    )
