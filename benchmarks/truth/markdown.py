"""Numbers of the studies as Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

Found = dict[str, Any]


def heading(*parts: Found) -> str:
    """When, on what and how a table ran.

    Args:
        parts: what was kept of each of its calls; the settings told are the first one's.
    """
    found, minutes = parts[0], sum(one["wall_clock_seconds"] for one in parts) / 60
    rows, training, warm = found["rows"], found["settings"]["training"], found["settings"]["warm_start"]
    cores, bases = found["machine"]["cores"], dict.fromkeys(f"{one['quantization']}/{one['dtype']}" for one in parts)
    return (
        f"**{max(one['date'] for one in parts)[:10]}**, {cores} CPU core{'s' * (cores != 1)}, "
        f"{minutes:.0f} minutes (the last calls, which found what others had made); "
        f"torch {found['versions']['torch']}, seed {found['seed']}.\n"
        f"{found['model']}, {' or '.join(bases)} base, {len(found['datasets'])} datasets, at most "
        f"{rows['train']} training, {rows['validation']} validation and {rows['test']} test rows each.\n"
        f"Warm start: {warm['epochs']:g} epochs, look-ahead: {warm['lookahead']:g}; fine-tunes: at most "
        f"{training['epochs']} epochs, learning rate {training['learning_rate']:g}, batches of "
        f"{training['batch_size']}."
    )


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; all columns but the first to the right."""
    ruled = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (head, ruled, *rows)]


def interval(one: Found | None, factor: float = 1) -> str:
    """A value with its interval."""
    return (
        "-" if one is None else f"{factor * one['value']:.2f} ({factor * one['low']:.2f} to {factor * one['high']:.2f})"
    )


def percent(value: float) -> str:
    """A share in percent, three digits."""
    return f"{100 * value:.3g}"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 of a single value."""
    centre = mean(values)
    return float((sum((value - centre) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5)
