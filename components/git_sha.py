"""Which commit this code is."""

import functools
import os
import subprocess
from pathlib import Path


@functools.cache
def git_sha() -> str:
    """The commit this code is at: from the image's environment, else from its own git, else 'unknown'."""
    if sha := os.environ.get("LORALOOM_GIT_SHA"):
        return sha
    source = Path(__file__).resolve().parents[1]
    # Installed somewhere inside another repository, that one's commit would say nothing of this code.
    ours = _git(source, "rev-parse", "--show-toplevel") == str(source)
    return (_git(source, "rev-parse", "HEAD") if ours else "") or "unknown"


def _git(folder: Path, *words: str) -> str:
    """What git answers, '' where there is no git or no repository."""
    try:
        asked = subprocess.run(  # noqa: S603 - fixed words
            ["git", *words],  # noqa: S607 - the user's own git
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return asked.stdout.strip()
