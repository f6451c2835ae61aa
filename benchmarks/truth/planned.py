"""A run as far as its groups, which a study goes on from with adapters of its own."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.truth import setting
from benchmarks.truth.members import Members
from benchmarks.truth.steps import run_until


@dataclass(frozen=True)
class Planned:
    """What has run, and since when.

    Attributes:
        config: as a dictionary.
        summary: of the run.
        members: makes adapters from the run's theta*.
        started: by the monotonic clock, in seconds.
    """

    config: dict[str, Any]
    summary: dict[str, Any]
    members: Members
    started: float

    @classmethod
    def of(cls, root: Path, config: dict[str, Any]) -> Self:
        """Run the steps up to the partition, in ``root``."""
        started = time.monotonic()
        summary, _ = run_until(config, root, "partition")
        return cls(config, summary, Members.of(config, root, summary), started)

    @property
    def groups(self) -> list[list[str]]:
        """The chosen groups, by the datasets' names."""
        groups: list[list[str]] = self.summary["groups"]
        return groups

    def about(self) -> dict[str, Any]:
        """What must stand beside the study's numbers, the wall clock up to now."""
        return setting.about(self.config, self.summary, time.monotonic() - self.started)
