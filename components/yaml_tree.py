"""Strict YAML whose every value knows its line.

PyYAML's safe loader takes the last of two equal keys in silence, and expands a nest of aliases into as many nodes as
it is asked to. Here both are errors. The node tree is kept, so that a complaint about a value can say where it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.errors import UserError, readable

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 30


@dataclass(frozen=True)
class YamlTree:
    """A parsed file.

    Attributes:
        name: the file's name as the user gave it; messages begin with it.
        data: the plain values.
        node: the node tree behind them.
        repeated: (line, path) of every key that stands twice in one mapping.
    """

    name: str
    data: Any
    node: yaml.Node
    repeated: tuple[tuple[int, str], ...]

    def locate(self, path: tuple[str | int, ...]) -> tuple[int, tuple[str | int, ...]]:
        """The line (from 1) of the value at ``path``, and the part of the path the file really has.

        Elements the file does not know (pydantic names the arm of a union in its locations) are left out.
        """
        node, line = self.node, self.node.start_mark.line + 1
        found: list[str | int] = []
        for element in path:
            step = _child(node, element)
            if step is not None:
                key, node = step
                line = key.start_mark.line + 1
                found.append(element)
        return line, tuple(found)


def read_yaml(path: Path) -> YamlTree:
    """Parse the one YAML document in ``path``.

    Raises:
        UserError: there is no such file, it is too large, not UTF-8, not YAML, or nested beyond reason.
    """
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise UserError(f"{path} is empty", remedy="`loraloom init` writes a config to start from")
        repeated = tuple(_inspect(node, str(path)))
        data = yaml.SafeLoader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UserError(
            f"{where}: not valid YAML: {error.problem}", remedy=_syntax_remedy(str(error.problem))
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of a date far outside the calendar
        raise UserError(f"{path}: not valid YAML: {error}", remedy="put the value in quotes") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", remedy="a config has four levels at most") from None
    return YamlTree(str(path), data, node, repeated)


def spell(path: tuple[str | int, ...]) -> str:
    """``("datasets", 0, "text")`` as ``datasets[0].text``."""
    parts = [f"[{element}]" if isinstance(element, int) else f".{element}" for element in path]
    return "".join(parts).removeprefix(".")


def _text(path: Path) -> str:
    with readable(path):
        if path.is_dir():
            raise UserError(f"{path} is a folder, not a config file", remedy="give the YAML file inside it")
        if not path.is_file():
            remedy = f"`loraloom init {path}` writes one to start from"
            raise UserError(f"there is no config file {path}", remedy=remedy)
        if path.stat().st_size > MAX_BYTES:
            remedy = "data belongs in files of its own"
            raise UserError(f"{path} is larger than 1 MiB, which no config is", remedy=remedy)
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from None


def _syntax_remedy(problem: str) -> str:
    if r"'\t'" in problem:
        return "YAML is indented with spaces, not tabs"
    if "another document" in problem:
        return "a config is one document: remove the line '---'"
    if "constructor for the tag" in problem:
        return "remove the tag: only plain values are read"
    return "look at the indentation and the quotes around there; text with ': ' or '#' in it needs quotes"


def _inspect(root: yaml.Node, name: str) -> Iterator[tuple[int, str]]:
    """Walk the tree as if every alias were written out; yield the repeated keys."""
    stack: list[tuple[yaml.Node, tuple[str | int, ...]]] = [(root, ())]
    visited = 0
    while stack:
        node, path = stack.pop()
        visited += 1
        if visited > MAX_NODES or len(path) > MAX_DEPTH:
            raise UserError(
                f"{name} is larger than any config when its aliases (*name) are written out",
                remedy="write the values out by hand, without aliases",
            )
        if isinstance(node, yaml.SequenceNode):
            stack.extend((child, (*path, index)) for index, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, child in node.value:
                here = (*path, str(key.value))
                if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                    yield key.start_mark.line + 1, spell(here)
                seen.add(str(key.value))
                stack.append((child, here))


def _child(node: yaml.Node, element: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """(where it is named, what it is) of one step down, or None."""
    if isinstance(node, yaml.SequenceNode):
        inside = isinstance(element, int) and element < len(node.value)
        return (node.value[element], node.value[element]) if inside else None
    if isinstance(node, yaml.MappingNode):
        for key, child in reversed(node.value):  # after a merge (<<) the last of two equal keys counts
            if key.value == str(element):
                return key, child
    return None
