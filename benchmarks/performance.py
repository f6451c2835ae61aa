"""Put the numbers of ``benchmarks/results.json`` into ``docs/performance.md`` and ``docs/serving.md``.

python -m benchmarks.performance
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.marked import replace
from benchmarks.run import RESULTS, cells, modules

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"engine": DOCS / "performance.md", "serving": DOCS / "serving.md"}
BEGIN = "<!-- results: python -m benchmarks.performance -->"


def write(results: dict[str, Any], folder: str, page: Path) -> None:
    """Replace what stands between the page's two marks by a table of the results of one folder's benchmarks."""
    named = {name for name, module in modules().items() if module.split(".")[1] == folder}
    results = results | {"rows": {name: rows for name, rows in results["rows"].items() if name in named}}
    replace(page, BEGIN, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = ", ".join(f"{name} {value}" for part in ("machine", "versions") for name, value in results[part].items())
    lines = [f"{results['date']}; datasets: {results['data']}; base model: {results['model']}; {about}.", ""]
    lines += ["| what | ours | against | ratio | target | | |", "| --- | ---: | ---: | ---: | ---: | --- | --- |"]
    for rows in results["rows"].values():
        for row in rows:
            verdict = {True: "ok", False: "missed", None: ""}[row["ok"]]
            lines.append(f"| {' | '.join((row['name'], *cells(row), verdict, row['note']))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    measured = json.loads(RESULTS.read_text())
    for folder, page in PAGES.items():
        write(measured, folder, page)
