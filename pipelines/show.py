"""A run's summary as tables for a terminal: each fits one screen."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.invocation import typed
from pipelines.training_plan import TrainingPlan

Summary = dict[str, Any]
METHODS = {"base": "base", "multitask": "one adapter", "ensemble": "ensemble"}
METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def show_plan(console: Console, summary: Summary, plan: TrainingPlan) -> None:
    """Groups, what they are expected to bring, and what training them will cost."""
    console.print(_groups(summary))
    console.print(_expected(summary["partition"], len(summary["groups"]), len(summary["datasets"])))
    for line in _gain(summary["partition"]):
        console.print(Text(line))
    console.print(_training(plan))
    console.print(Text(_cost(plan)))


def show_result(console: Console, summary: Summary, where: Sequence[str]) -> None:
    """Groups, test results by dataset, cost, the verdict on promotion, and where to look further.

    Args:
        where: the options that name this run to other commands, such as ``["-c", "config.yaml"]``.
    """
    if unchanged := summary.get("unchanged"):
        console.print(Text(f"{unchanged['reason']}\nnothing was registered"), soft_wrap=True)
        return
    console.print(_groups(summary))
    console.print(_results(summary))
    for line in _findings(summary):
        console.print(Text(line), soft_wrap=True)
    for command, purpose in (("report", "tables, curves and figures"), ("ui", "runs, adapters and versions in MLflow")):
        console.print(Text.assemble("-> ", (typed(command, *where), "bold"), f"  {purpose}"), soft_wrap=True)


def _groups(summary: Summary) -> Table:
    table = Table("group", "datasets", box=None, pad_edge=False)
    for k, group in enumerate(summary["groups"]):
        table.add_row(f"group-{k}", Text(", ".join(group)))
    return table


def _expected(partition: Summary, groups: int, datasets: int) -> Table:
    table = Table("\nexpected loss", "\ngroups", "\nshare of label entropy", box=None, pad_edge=False)
    rows = (("this partition", groups, "chosen"), ("one group", 1, "one"), ("one group a dataset", datasets, "each"))
    for name, adapters, key in rows:
        table.add_row(name, str(adapters), f"{partition['expected'][key]:.4f}")
    return table


def _gain(partition: Summary) -> Iterator[str]:
    gain = partition.get("gain")
    if gain:
        yield f"cross-fitted gain over one group: {gain['mean']:.4f} ± {gain['standard_error']:.4f}"
    curve = partition.get("curve") or []
    if len(curve) > 1:
        yield "by number of groups: " + "  ".join(f"{point['m']}: {point['loss']:.4f}" for point in curve)
    if partition.get("kept_champion"):
        yield "the champion's groups are kept: no other partition is better by more than one standard error"
    yield from _unfinished(partition)


def _unfinished(partition: Summary) -> Iterator[str]:
    if not partition["complete"]:
        yield f"the search for groups ended when {partition['scored']} had been scored: there may be better ones"


def _training(plan: TrainingPlan) -> Table:
    table = Table("\nto train", box=None, pad_edge=False)
    for column in ("datasets", "rows", "steps, at most"):
        table.add_column(f"\n{column}", justify="right")
    for adapter in plan.adapters:
        table.add_row(adapter.name, str(len(adapter.datasets)), str(adapter.rows), str(adapter.steps))
    return table


def _cost(plan: TrainingPlan) -> str:
    flops = f"{plan.flops:.2e} FLOPs" if plan.flops else "FLOPs unknown (no warm start measured them)"
    memory = f"peak memory about {plan.memory_bytes / 2**30:.1f} GiB" if plan.memory_bytes else "peak memory unknown"
    return f"{len(plan.adapters)} adapters, {plan.steps} steps, {flops}, {memory}"


def _results(summary: Summary) -> Table:
    methods = [method for method in METHODS if method in summary["methods"]]
    table = Table("\ndataset", "\nmetric, %", box=None, pad_edge=False)
    for method in methods:
        table.add_column(f"\n{METHODS[method]}", justify="right")
    for dataset in summary["datasets"]:
        result, metric = summary["results"][dataset["name"]], dataset["metric"]
        values = [result[method][metric]["value"] for method in methods]
        table.add_row(dataset["name"], METRICS[metric], *_marked(values))
    table.add_section()
    table.add_row("average", "", *_marked([summary["average"][method]["metric"]["value"] for method in methods]))
    return table


def _marked(values: list[float]) -> list[Text]:
    """Percentages, the best in bold."""
    best = max(values)
    return [Text(f"{100 * value:.1f}", style="bold" if value == best else "") for value in values]


def _findings(summary: Summary) -> Iterator[str]:
    yield ""
    yield from _unfinished(summary["partition"])
    for comparison in summary["comparisons"]:
        difference, low, high = (100 * comparison[key] for key in ("difference", "low", "high"))
        name = METHODS.get(comparison["baseline"], comparison["baseline"])
        yield f"ensemble against {name}: {difference:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    share = summary["cost"].get("extra_flops_share")
    if share is not None:
        yield f"FLOPs beyond one adapter on everything, which is a member: {100 * share:+.0f} %"
    yield from _apart(summary)
    promotion = summary["promotion"]
    yield f"promotion: {promotion['decision']}" + (f" ({promotion['reason']})" if promotion["reason"] else "")


def _apart(summary: Summary) -> Iterator[str]:
    """New test rows, what was not compared with the champion, and drift beyond its threshold."""
    against = summary.get("against_champion", {"test_rows": {}, "left_out": {}})
    for name, rows in against["test_rows"].items():
        if rows["on_new"]:
            yield f"{name}: {100 * rows['on_new']['value']:.1f} % on {rows['new']} new test rows, which decide nothing"
        if rows["relabelled"]:
            yield f"{name}: {rows['relabelled']} of {rows['frozen']} frozen test rows have another label now"
    for name, why in against["left_out"].items():
        yield f"{name}: not compared with the champion: {why}"
    for name, words in summary.get("drift", {}).get("warnings", {}).items():
        yield f"drift: {name}: {', '.join(words)}"
