"""Runs the pipeline on sixteen real datasets and writes what came out as JSON and as a Markdown table.

python benchmarks/real/run.py --data DATA --model MODEL --out benchmarks/real/results.json
"""

import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from components.config import RunConfig
from pipelines.local import run_local

HERE = Path(__file__).parent
METHODS = {
    "base": "base model",
    "start": "theta*",
    "multitask": "one multi-task adapter",
    "per_dataset": "an adapter each",
    "group": "own group's adapter",
    "ensemble": "ensemble",
}


def main(
    data: Annotated[Path, typer.Option(help="Folder with one folder a dataset.")],
    model: Annotated[Path, typer.Option(help="Base model in transformers layout.")],
    out: Annotated[Path, typer.Option(help="Where the results go, as JSON.")] = HERE / "results.json",
    root: Annotated[Path, typer.Option(help="Where the run works; finished parts there are reused.")] = Path(
        ".loraloom/real"
    ),
    train: Annotated[int, typer.Option(help="Training rows a dataset, at most.")] = 400,
    validation: Annotated[int, typer.Option(help="Validation rows a dataset, at most.")] = 200,
    test: Annotated[int, typer.Option(help="Test rows a dataset, at most.")] = 250,
) -> None:
    """Run the pipeline on the real datasets; print and keep the results."""
    settings = yaml.safe_load((HERE / "config.yaml").read_text())
    settings["model"]["id"] = str(model.resolve())
    rows = {"train": train, "validation": validation, "test": test}
    for dataset in settings["datasets"]:
        dataset |= {"path": str(data.resolve() / dataset["name"]), "max_rows": rows}
    started = time.monotonic()
    summary = run_local(RunConfig.model_validate(settings), root)
    result = condensed(summary, rows, time.monotonic() - started)
    out.write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(markdown(result))


def condensed(summary: dict[str, Any], rows: dict[str, int], seconds: float) -> dict[str, Any]:
    """The part of a summary that is worth keeping with the project: no path, no id."""
    settings = summary["settings"]
    kept = ("lora", "warm_start", "gradients", "training", "boosting", "surrogate")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "wall_clock_seconds": round(seconds),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()},
        "rows": rows,
        "settings": {section: settings[section] for section in kept},
        "quantization": settings["model"]["quantization"],
        "dtype": settings["model"]["dtype"],
        "seed": summary["seed"],
        "versions": summary["versions"],
        "metrics": {dataset["name"]: dataset["metric"] for dataset in summary["datasets"]},
        "groups": summary["groups"],
        "partition": {key: summary["partition"][key] for key in ("method", "curve", "expected", "gain")},
        "weights": summary["weights"],
        "boosting": summary.get("boosting", {}),
        "results": summary["results"],
        "average": summary["average"],
        "comparisons": summary["comparisons"],
        "cost": summary["cost"],
        "promotion": summary["promotion"],
    }


def markdown(result: dict[str, Any]) -> str:
    """The results as a Markdown table: each metric in percent, half the width of its interval behind it."""
    methods = [method for method in METHODS if method in result["average"]]
    lines = ["| dataset | metric | " + " | ".join(METHODS[method] for method in methods) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(methods))
    for name, metric in result["metrics"].items():
        cells = [_cell(result["results"][name][method][metric]) for method in methods]
        lines.append(f"| {name} | {metric} | " + " | ".join(cells) + " |")
    cells = [_cell(result["average"][method]["metric"]) for method in methods]
    lines.append("| **average** | | " + " | ".join(cells) + " |")
    losses = [f"{result['average'][method]['cross_entropy']['value']:.3f}" for method in methods]
    lines.append("| cross-entropy, average | nats | " + " | ".join(losses) + " |")
    return "\n".join(lines)


def _cell(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} ± {50 * (interval['high'] - interval['low']):.1f}"


if __name__ == "__main__":
    typer.run(main)
