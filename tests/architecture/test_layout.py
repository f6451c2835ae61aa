"""The rules of the house, checked on the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("components", "pipelines") for path in (ROOT / package).rglob("*.py"))
LINES_A_FILE, LINES_A_FUNCTION = 300, 50
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def definitions(path: Path) -> Iterator[Definition]:
    """All functions and classes of a file, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Definition):
            yield node


def public(path: Path) -> Iterator[Definition]:
    """What a file offers: its functions and classes, and the methods of these, without a leading underscore."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            methods = node.body if isinstance(node, ast.ClassDef) else []
            yield from (each for each in methods if isinstance(each, Function) and not each.name.startswith("_"))


def test_every_file_is_looked_at() -> None:
    assert len(FILES) > 60
    assert ROOT / "components/step.py" in FILES


def test_imports_keep_to_their_contracts() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 broken" in ended.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short_and_say_what_they_do(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_A_FILE, f"{lines} lines"
    for node in definitions(path):
        if isinstance(node, Function):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LINES_A_FUNCTION, f"{node.name}, line {node.lineno}: {length} lines"
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "the file does not say what it is for"
    for node in public(path):
        inherited = any(isinstance(mark, ast.Name) and mark.id == "override" for mark in node.decorator_list)
        assert inherited or ast.get_docstring(node), f"{node.name}, line {node.lineno}: no docstring"
        if isinstance(node, Function):
            assert node.returns is not None, f"{node.name}, line {node.lineno}: says not what it returns"
