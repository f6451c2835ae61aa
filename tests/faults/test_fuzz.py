"""The fuzzer, for a bounded time. Its short twin in every test run is ``test_properties.py``."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.faults
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")
@pytest.mark.parametrize("target", ["config", "data"])
def test_the_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", target, "-max_total_time=45", "-max_len=2000"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
