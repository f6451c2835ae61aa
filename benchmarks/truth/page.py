"""Put the numbers of ``benchmarks/truth/results/*.json`` into ``docs/truth.md``, what they decide into ``results.md``.

Those of the second model, in the folder ``gpt2`` there, have the page ``truth-gpt2.md``.

python -m benchmarks.truth.page
"""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.marked import replace
from benchmarks.truth.estimate_tables import ablations, affinities, calibration, sizes, study
from benchmarks.truth.figures import CAPTIONS, pictures
from benchmarks.truth.goals import goals
from benchmarks.truth.markdown import Found, grid, heading, mean, percent, spread
from benchmarks.truth.names import COMPARED, ENSEMBLE, FROM_POINT, FULL
from benchmarks.truth.one_fifth import together
from benchmarks.truth.setting import HERE, RESULTS
from components.validation.verdict import ONE_FIFTH_PERCENT

DOCS = HERE.parents[1] / "docs"
ENGINE = HERE.parent / "results.json"
BEGIN = "<!-- results: python -m benchmarks.truth.page -->"


def write(results: Path, engine: Path, docs: Path) -> None:
    """Replace what stands between the two marks of each page by the tables there are, and draw their pictures."""
    for page, (folder, names) in PAGES.items():
        kept = {path.stem: json.loads(path.read_text()) for path in (results / folder).glob("*.json")}
        found = {name: kept[name] for name in names if name in kept}
        drawn = pictures(found)
        for name, image in drawn.items():
            (docs / _picture(page, name)).write_bytes(image)
        shown = [SECTIONS[name](numbers) + _shown(page, name, drawn) for name, numbers in found.items()]
        if names is not CHOICES:
            shown.insert(0, goals(kept, None if folder else json.loads(engine.read_text())))
        replace(docs / page, BEGIN, "\n\n".join(shown))


def _picture(page: str, study: str) -> str:
    """The file of a study's picture on a page."""
    return f"{Path(page).stem}-{study}.png"


def _shown(page: str, study: str, drawn: Collection[str]) -> str:
    """What stands below a study's tables: its picture, where it has one."""
    return f"\n\n![{CAPTIONS[study]}]({_picture(page, study)})" if study in drawn else ""


def first_order(found: Found) -> str:
    """Errors by distance and base."""
    lines = [
        "## First-order error",
        "",
        heading(*found.values()),
        "The adapter moves along the surrogate's solutions of the largest groups and of all datasets together. Error",
        "of the margin in percent, root mean square relative to the margin, unprojected / projected, and in brackets",
        "relative to the *change* of the margin; mean over subsets ± standard deviation between them. The papers'",
        "errors are squares of these (residual by total sum of squares): 1 % there is 10 % here.",
        "",
    ]
    distances = [one["distance"] for one in next(iter(found.values()))["subsets"][0]["errors"]]
    rows = []
    for base, one in found.items():
        cells = [base]
        for at, _ in enumerate(distances):
            errors = [subset["errors"][at] for subset in one["subsets"]]
            plain, shadow = ([e[kind]["relative"] for e in errors] for kind in ("unprojected", "projected"))
            change = [e["unprojected"]["of_change"] for e in errors]
            cells.append(
                f"{percent(mean(plain))} ± {percent(spread(plain))} / {percent(mean(shadow))} ({percent(mean(change))})"
            )
        rows.append(cells)
    lines += grid(["base", *(f"{100 * distance:g} %" for distance in distances)], rows)
    away = ", ".join(
        f"{base} {percent(mean([s['solution_distance'] for s in one['subsets']]))} %" for base, one in found.items()
    )
    every = ", ".join(f"{base} {percent(together(one['subsets']))} %" for base, one in found.items())
    return "\n".join(
        [
            *lines,
            "",
            f"How far the solutions themselves are: {away}.",
            "",
            "Each base has groups of its own, and their errors differ. For all datasets together, which every base "
            f"has, the error at {100 * ONE_FIFTH_PERCENT:g} % is: {every}.",
        ]
    )


def controls(found: Found) -> str:
    """The ensemble among its controls."""
    note = (
        "theta*, features and the chosen groups are the same for all of them; random groups are others for\n"
        'each. Of "multi-task and chosen groups" the prior of the weights is on the multi-task adapter, of "chosen\n'
        "groups and multi-task\" on the own group's. FLOPs by the first method's; where groups are chosen, solver and\n"
        f"search took {found['plan_flops']:.3g} more, which are not in them. "
    ) + f"Groups: {'; '.join(', '.join(group) for group in found['groups'])}."
    section, ours = _of_methods("Where a gain comes from", found, [found], note, COMPARED), found["methods"]
    apart = {other: ours.get(ENSEMBLE, {}).get(f"against {other}") for other in COMPARED}
    told = [
        f"{one['calibrated']['value']:+.4f} ± {one['calibrated']['noise']:.4f} against {other}"
        for other, one in apart.items()
        if one
    ]
    return f"{section}\n\nThe ensemble ({ENSEMBLE}) by its calibrated loss: {', '.join(told)}." if told else section


def recipes(found: Found) -> str:
    """Recipes by what they reach and cost."""
    note = (
        "Epochs of the warm start + of the groups. Beside them one multi-task\n"
        "adapter from the raw initialisation of as many epochs as both together, rounded up. FLOPs by the first\n"
        "one's; warm start, look-ahead and extraction counted, solver and search not. The look-ahead is as above.\n"
        "theta* and a multi-task adapter stand once, where several recipes have the same."
    )
    return _of_methods("Which recipe", found, list(found["recipes"].values()), note, found["against"])


def beginnings(found: Found) -> str:
    """Groups' adapters by where they begin."""
    note = "The chosen groups' own adapters; after one epoch, the last weights. FLOPs without solver and search."
    return _of_methods("Where adapters begin", found, [found], note, (FULL, FROM_POINT))


def _of_methods(title: str, found: Found, ran: Sequence[Found], note: str, against: Sequence[str]) -> str:
    """A section with a table of methods, and how its parts ran."""
    told = [heading(*ran), f"{found['seeds']} seeds. {note}"]
    return "\n".join([f"## {title}", "", *told, "", *methods(found["methods"], against)])


def methods(rows: Found, against: Sequence[str]) -> list[str]:
    """A table of methods: metric, losses, FLOPs, paired differences of the metric over seeds."""
    head = [
        "method",
        "metric, %",
        "accuracy, %",
        "loss",
        "calibrated",
        "FLOPs",
        *(f"metric against {other}" for other in against),
    ]
    table = []
    for name, row in rows.items():
        told = [name, *(f"{100 * mean(row[key]):.2f} ± {100 * spread(row[key]):.2f}" for key in ("metric", "accuracy"))]
        told += [f"{mean(row[key]):.4f} ± {spread(row[key]):.4f}" for key in ("loss", "calibrated")]
        told.append(f"{row['relative_flops']:.2f}")
        for other in against:
            apart = row.get(f"against {other}", {}).get("metric")
            told.append("" if apart is None else f"{100 * apart['value']:+.2f} ± {100 * apart['noise']:.2f}")
        table.append(told)
    note = (
        "Metric: mean over datasets of each one's own; ± standard deviation over seeds; differences with the half width"
    )
    return [
        *grid(head, table),
        "",
        note,
        "of their 95 % interval over seeds. Loss: share of the label entropy, on test rows; calibrated: at a",
        "temperature fitted on validation rows, as weighted answers always are.",
    ]


def boosting(found: Found) -> str:
    """The first booster's changes, by method."""
    lines = ["## Boosting's first step", "", heading(*found.values())]
    head, rows = ["what", "before"], dict[str, list[str]]()
    for method, one in found.items():
        kept = [group["kept"] for seed in one["seeds"] for group in seed["groups"]]
        lines.append(f"{method}: {len(one['seeds'])} seeds, {sum(kept)} of {len(kept)} boosters kept.")
        if "mean" not in one:  # of a single seed
            continue
        head += [f"{method}: change", "where kept"]
        for key in one["seeds"][0]["before"]:
            row = rows.setdefault(key, [key, f"{mean([seed['before'][key] for seed in one['seeds']]):.4f}"])
            apart = [one["mean"][f"{how}: {key}"] for how in ("always", "where kept")]
            row += [f"{change['value']:+.4f} ± {change['noise']:.4f}" for change in apart]
    lines += [
        "Mean over datasets, half width of the 95 % interval over seeds. Error: share of wrong answers; loss in",
        "nats. linear: a step along gradients; trained: one epoch with what the group adds already as offset.",
        "",
    ]
    return "\n".join([*lines, *grid(head, list(rows.values()))])


def sources(found: Found) -> str:
    """Chosen sources and what they really bring."""
    lines = ["## Data sources for a target", "", heading(*found.values())]
    rows = []
    for target, one in found.items():
        for name, told in (
            ("none", "alone"),
            ("chosen", ", ".join(one["chosen"]) or "none chosen"),
            ("all", "all others"),
        ):
            real = one["confirmed"][name]
            losses = [f"{real[split]['mean']:.4f} ± {real[split]['spread']:.4f}" for split in ("validation", "test")]
            right = real["accuracy"]
            rows.append([target, told, *losses, f"{100 * right['mean']:.1f} ± {100 * right['spread']:.1f}"])
    seeds = next(iter(found.values()))["settings"]["selection"]["seeds"]
    lines += [f"Mean and standard deviation over {seeds} seeds; losses in nats.", ""]
    return "\n".join(
        [*lines, *grid(["target", "trained with", "validation loss", "test loss", "test accuracy, %"], rows)]
    )


SECTIONS: dict[str, Callable[[Found], str]] = {
    "first_order": first_order,
    "study": study,
    "sizes": sizes,
    "controls": controls,
    "recipes": recipes,
    "beginnings": beginnings,
    "boosting": boosting,
    "sources": sources,
    "ablations": ablations,
    "affinities": affinities,
    "calibration": calibration,
}

# What they say is why the defaults are as they are.
CHOICES = ("recipes", "beginnings", "boosting", "ablations", "affinities", "calibration")
CLAIMS = tuple(name for name in SECTIONS if name not in CHOICES)
# By page: the folder of the numbers, and the studies it shows.
PAGES = {"truth.md": ("", CLAIMS), "results.md": ("", CHOICES), "truth-gpt2.md": ("gpt2", tuple(SECTIONS))}

if __name__ == "__main__":
    write(RESULTS, ENGINE, DOCS)
