"""Put the numbers of ``benchmarks/results.json`` into ``docs/performance.md``.

python -m benchmarks.performance
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.run import RESULTS, cells

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- results: python -m benchmarks.performance -->"
END = "<!-- end of results -->"


def write(results: dict[str, Any], page: Path) -> None:
    """Replace what stands between the page's two marks by a table of the results."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}")


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
    write(json.loads(RESULTS.read_text()), PAGE)
