"""A selection as tables for a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SETS = {"chosen": "with the chosen ones", "all": "with all", "none": "alone"}


def show_selection(console: Console, found: dict[str, Any]) -> None:
    """The order with expected losses, where to stop, scores beside it, and the true losses where there are any."""
    console.print(_order(found))
    names = ", ".join(found["chosen"]) or "none: no other dataset lowers its loss by more than the standard error"
    console.print(Text(f"train along with {found['target']}: {names}"), soft_wrap=True)
    if "confirmed" in found:
        console.print(_confirmed(found))


def _order(found: dict[str, Any]) -> Table:
    table = Table(f"\nfor {found['target']}", box=None, pad_edge=False)
    for column in ("expected\nloss", "gain,\ncross-fitted", "random-subset\nscore", "leave-one-out\neffect"):
        table.add_column(column, justify="right")
    table.add_column("")
    table.add_row("alone", f"{found['alone']:.4f}", "", "", "", "")
    for k, one in enumerate(found["order"]):
        effects = [found[kind][one["name"]] for kind in ("scores", "leave_one_out")]
        cells = [_with_error(one), *map(_with_error, effects)]
        stop = "stop here" if k == found["stop"] else ""
        table.add_row(f"+ {one['name']}", f"{one['loss']:.4f}", *cells, stop, style="dim" if k >= found["stop"] else "")
    return table


def _with_error(one: dict[str, float]) -> str:
    return f"{one['gain']:+.4f} ± {one['standard_error']:.4f}"


def _confirmed(found: dict[str, Any]) -> Table:
    table = Table(f"\nfine-tuned, {found['seeds']} seeds", box=None, pad_edge=False)
    for column in ("validation\nloss", "test\nloss", "test\naccuracy, %"):
        table.add_column(column, justify="right")
    for name, label in SETS.items():
        one = found["confirmed"][name]
        losses = [f"{one[split]['mean']:.4f} ± {one[split]['spread']:.4f}" for split in ("validation", "test")]
        accuracy = f"{100 * one['accuracy']['mean']:.1f} ± {100 * one['accuracy']['spread']:.1f}"
        table.add_row(label, *losses, accuracy)
    return table
