"""The command lines that are shown can be typed where they are shown."""

import sys
from pathlib import Path

import pytest

from pipelines.invocation import typed


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in a virtual environment that no shell knows of."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    path = folder / "loraloom"
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    return path


def test_below_the_working_directory_it_is_a_short_path(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(script.parents[2])
    assert typed("report", "-c", Path("my files/config.yaml")) == ".venv/bin/loraloom report -c 'my files/config.yaml'"


def test_where_the_shell_finds_it_the_name_will_do(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert typed("ui") == "loraloom ui"


def test_elsewhere_it_is_the_whole_path_whatever_else_has_that_name(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "loraloom"
    other.parent.mkdir()
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    monkeypatch.chdir(other.parent)
    assert typed("ui") == f"{script} ui"


def test_without_a_script_it_is_the_module(script: Path) -> None:
    script.unlink()
    assert typed("ui") == f"{script.parent}/python -m pipelines.cli ui"
