"""Rows without a dataset among rows with one."""

from collections.abc import Mapping, Sequence

from components.errors import UserError
from components.serving.routing import settled


class Router:
    """Goes by the fields that are given, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []

    def route(self, fields: Mapping[str, Sequence[str]]) -> list[str]:
        self.asked.append({name: list(column) for name, column in fields.items()})
        if "text" not in fields:
            raise UserError("no dataset takes these")
        return [f"{len(fields)}-{text}" for text in fields["text"]]


def test_only_rows_without_a_name_are_routed_and_those_alike_together() -> None:
    router = Router()
    rows = [{"text": "a"}, {"text": "b"}, {"other": "c"}, {"text_pair": "e", "text": "d"}, {"text": "f"}]
    first, named, refused, pair, last = settled(router, ["", "mood", "", "", ""], rows)
    assert (first, named, pair, last) == ("1-a", "mood", "2-d", "1-f")
    assert isinstance(refused, UserError) and refused.what == "no dataset takes these"
    assert router.asked == [{"text": ["a", "f"]}, {"other": ["c"]}, {"text": ["d"], "text_pair": ["e"]}]


def test_where_all_are_named_nobody_is_asked() -> None:
    router = Router()
    assert settled(router, ["mood", "pair"], [{"text": "a"}, {}]) == ["mood", "pair"] and not router.asked
