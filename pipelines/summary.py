"""``summary.json`` and ``report.html`` of a run that has ended, in its root folder.

A plan writes ``plan.json`` and ``plan.html`` instead, a validation or selection files of its own name, so that none of
them hides the last finished run.
"""

import json
import tempfile
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
    if unchanged := summary.get("unchanged"):
        if _version_in(root) != unchanged["version"]:
            _write(root, _summary_of(config, unchanged["version"]))
        return summary
    _write(root, summary)
    return summary


def _write(root: Path, summary: dict[str, Any]) -> None:
    if "validation" in summary:
        from components.validation.report import render

        names, page = ("validation.json", "validation.html"), render(summary)
    elif "selection" in summary:
        (root / "selection.json").write_text(json.dumps(summary, indent=1))
        return
    else:
        names = ("summary.json", "report.html") if "results" in summary else ("plan.json", "plan.html")
        page = render_report(summary)
    (root / names[0]).write_text(json.dumps(summary, indent=1))
    (root / names[1]).write_text(page)


def _version_in(root: Path) -> str | None:
    """The version that the files in ``root`` tell of."""
    saved = root / "summary.json"
    return json.loads(saved.read_text())["mlflow"].get("ensemble_version") if saved.is_file() else None


def _summary_of(config: RunConfig, version: str) -> dict[str, Any]:
    """The summary of the run that made a version, as MLflow keeps it: it ran elsewhere, or others have run since."""
    from components import tracking

    client = tracking.connect(str(config.tracking.uri))
    run_id = str(client.get_model_version(config.name, version).run_id)
    with tempfile.TemporaryDirectory(prefix="loraloom-") as folder:
        summary: dict[str, Any] = json.loads(
            Path(client.download_artifacts(run_id, "summary.json", folder)).read_text()
        )
    summary["mlflow"]["ensemble_version"] = version
    return summary
