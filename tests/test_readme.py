"""What the README promises exists: its commands, its make targets, its links, and its config is valid."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"bin/loraloom (\w+)|`loraloom (\w+)", README))))
def test_every_command_exists(command: tuple[str, str]) -> None:
    name = command[0] or command[1]
    asked = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", name, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert f"{name} [OPTIONS]" in asked.stdout


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"make (\w+)", README))
    assert {"demo", "test", "lint", "types"} <= targets
    assert targets <= set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_config_shown_is_valid() -> None:
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown
    config = RunConfig.model_validate(yaml.safe_load(shown.group(1)))
    assert [dataset.name for dataset in config.datasets] == ["sentiment", "intent"]
