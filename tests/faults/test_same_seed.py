"""The same seed gives the same content, in another process, with a fresh store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Finished, digests
from tests.faults.kill import run_once


def test_the_same_seed_gives_the_same_digests(finished: Finished, tmp_path: Path) -> None:
    """Datasets, theta*, features, affinity, partition, adapters, logits, W: all of them, bit by bit."""
    again = run_once(finished.config, tmp_path / "root", None)
    assert again.exit_code == 0, again.log
    found = digests(again.summary)
    kinds = {label.split("/")[0] for label in found}
    assert {"dataset", "start", "features", "affinity", "partition", "adapter", "weights"} <= kinds
    assert found == finished.digests
    assert again.summary["weights"] == finished.summary["weights"]


@pytest.mark.faults
def test_so_does_the_demo(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        command = [sys.executable, "-m", "pipelines.cli", "demo", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True)
        made.append(json.loads((tmp_path / name / "summary.json").read_text()))
    assert digests(made[0]) == digests(made[1])
    assert made[0]["weights"] == made[1]["weights"]
