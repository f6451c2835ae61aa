"""docs/reliability.md names tests that exist, and every file of fault tests."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", PAGE)
    path, checked = "", 0
    for file, test in named:
        path = file or path
        if not path:
            continue
        source = (TESTS / path).read_text("utf-8")
        defined = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
        assert not test or test in defined, f"{path}::{test}"
        checked += bool(test)
    assert checked > 30


def test_every_file_of_fault_tests_is_on_the_page() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        assert path.name in PAGE or path == Path(__file__), path.name
