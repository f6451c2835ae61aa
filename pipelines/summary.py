"""``summary.json`` and ``report.html`` of a run that has ended, in its root folder.

A plan writes ``plan.json`` and ``plan.html`` instead, so that it never hides the last finished run.
"""

import json
from pathlib import Path
from typing import Any

from components.config import RunConfig
from components.ensemble.report import render_report
from components.object_store import open_store
from components.summary import assemble


def collect(config: RunConfig, root: Path, run_name: str) -> dict[str, Any]:
    """Write summary and report of the run into ``root`` and return the summary.

    Args:
        config: with storage and tracking resolved, as the steps had it.
    """
    summary = assemble(open_store(config.storage, root / "store"), run_name, config)
    if "unchanged" in summary:  # the files of the run that made what there is stay
        return summary
    data, page = ("summary.json", "report.html") if "results" in summary else ("plan.json", "plan.html")
    (root / data).write_text(json.dumps(summary, indent=1))
    (root / page).write_text(render_report(summary))
    return summary
