"""The validation's page: the verdict in words, then the numbers and figures it stands on."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from components.drawing import Image
from components.page import environment, inline_svg, style
from components.validation.figures import draw
from components.validation.labels import PARTITIONS, PREDICTORS


def render(summary: Mapping[str, Any], figures: Mapping[str, Image] | None = None) -> str:
    """One self-contained HTML page.

    Args:
        summary: of the run, with ``validation``.
        figures: from :func:`~components.validation.figures.draw`, where the caller has drawn them already.
    """
    found = summary["validation"]
    images = draw(found) if figures is None else figures
    text = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    return (
        environment()
        .from_string(text)
        .render(
            summary=summary,
            found=found,
            style=style(),
            figures={name: inline_svg(image.svg, name) for name, image in images.items()},
            predictors=PREDICTORS,
            partition_labels=PARTITIONS,
        )
    )
