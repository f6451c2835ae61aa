"""The most memory that a step of the demo holds, and which step that is; the demo runs as ``loraloom demo`` runs it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Row

MOST = 1.5  # GiB a process; two of them run at a time


def rows() -> list[Row]:
    """Peak resident memory of the largest process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipelines.cli", "demo", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        steps = json.loads((Path(folder) / "summary.json").read_text())["cost"]["steps"]
    largest = max(steps, key=lambda step: step["peak_memory_bytes"])
    peak = largest["peak_memory_bytes"] / 2**30
    return [Row("the demo, peak memory", peak, None, peak, MOST, unit="GiB", note=f"of the step {largest['step']}")]
