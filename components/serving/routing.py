"""Which dataset answers each row: the one it names, else the router's choice."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from components.errors import UserError


class Routes(Protocol):
    """What routing asks of an ensemble; see :class:`~components.serving.predict.EnsemblePredictor`."""

    def route(self, fields: Mapping[str, Sequence[str]]) -> list[str]:
        """The likeliest dataset of each row. Raises ``UserError`` where none takes these fields."""


def settled(predictor: Routes, names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str | UserError]:
    """The dataset of each of N rows, or why it has none.

    Args:
        names: what each row says; '' leaves it to the router.
        rows: the texts of each row by field. Rows with the same fields are routed together.
    """
    found: list[str | UserError] = list(names)
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        if not name:
            alike.setdefault(tuple(sorted(row)), []).append(i)
    for fields, places in alike.items():
        texts = {field: [rows[i][field] for i in places] for field in fields}
        try:
            routed: Sequence[str | UserError] = predictor.route(texts)
        except UserError as error:
            routed = [error] * len(places)
        for i, name_or_error in zip(places, routed, strict=True):
            found[i] = name_or_error
    return found
