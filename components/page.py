"""What our HTML pages share: their style, how numbers are written, figures inside them.

A page is one file that needs nothing else and forbids itself any network access. Every text is escaped.
"""

import math
import re
from importlib.resources import files

from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup

from components.drawing import PALETTE

ABSENT = "\N{EN DASH}"  # what tables print for nothing


def style() -> Markup:
    """The pages' style sheet."""
    return Markup(files(__package__).joinpath("page.css.j2").read_text(encoding="utf-8"))  # noqa: S704, ours


def inline_svg(svg: bytes, name: str) -> Markup:
    """An SVG of ours ready to stand inside a page: the page's colours, no ids but those referred to, a label."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    for colour, value in PALETTE.items():
        text = text.replace(value, f"var(--{colour.replace('_', '-')}, {value})")
    text = re.sub(r"(<svg[^>]*?) width=\"([\d.]+)pt\" height=\"[\d.]+pt\"", r'\1 style="width: \2pt"', text, count=1)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="figure: {name}" ', 1))  # noqa: S704, drawn by us


def environment() -> Environment:
    """jinja2 with our filters; every text is escaped, and what is missing prints as nothing."""
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined)
    made.filters.update(
        percent=percent, points=points, number=number, duration=duration, size=size, flops=flops, p_value=p_value
    )
    return made


def _missing(value: object) -> bool:
    """Whether there is no number to print: nothing, jinja2's undefined, or not finite."""
    return not isinstance(value, int | float) or not math.isfinite(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage without its sign: 0.7312 -> '73.1'."""
    return ABSENT if value is None or _missing(value) else f"{100 * value:.{digits}f}"


def points(value: float | None, sign: bool = True) -> str:
    """A difference of shares in percentage points: 0.0124 -> '+1.2'."""
    return ABSENT if value is None or _missing(value) else _minus(f"{100 * value:{'+' * sign}.1f}")


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with fixed digits."""
    return ABSENT if value is None or _missing(value) else _minus(f"{value:.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Seconds for people: '0.8 s', '48 s', '6 min 50 s', '2 h 05 min'."""
    if seconds is None or _missing(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float | None) -> str:
    """Bytes in GB (10^9), or MB below one; nothing measured is a dash."""
    if not value or _missing(value):
        return ABSENT
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def flops(value: float | None) -> str:
    """Floating-point operations: 8.0e16 -> '80.0 PFLOP'."""
    if not value or _missing(value):
        return ABSENT
    for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= unit:
            return f"{value / unit:.1f} {prefix}FLOP"
    return f"{value:.0f} FLOP"


def p_value(value: float | None) -> str:
    """'p = 0.012', or 'p < 0.001'."""
    if value is None or _missing(value):
        return ABSENT
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
