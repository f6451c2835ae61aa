"""What the scripts of this folder share: the config of a study on real datasets, options, and what is kept of a run.

Paths are options, never settings: DATA holds the folders named in ``benchmarks/real/config.yaml``.
"""

import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from components.config import RunConfig
from pipelines.catalogue import Until
from pipelines.local import run_local

HERE = Path(__file__).parent
REAL = HERE.parent / "real" / "config.yaml"
# Twelve of the sixteen: every subset of twelve can be estimated. Left out are the longest texts and the two datasets
# whose samples are too small or whose labels are too many for the noise to be averaged out in hours.
DATASETS = (
    "clinc_domain,cola,financial_phrasebank,politeness,sms_spam,sst2,subj,trec,tweet_emotion,tweet_irony,"
    "tweet_offensive,wic"
)

DataOption = Annotated[Path, typer.Option(help="Folder with one folder a dataset.")]
ModelOption = Annotated[Path, typer.Option(help="Base model in transformers layout.")]
RootOption = Annotated[Path, typer.Option(help="Where runs work; what is finished there is reused.")]
OutOption = Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")]
DatasetsOption = Annotated[str, typer.Option(help="Names, with commas between.")]
TrainOption = Annotated[int, typer.Option(help="Training rows a dataset, at most.")]
ValidationOption = Annotated[int, typer.Option(help="Validation rows a dataset, at most.")]
TestOption = Annotated[int, typer.Option(help="Test rows a dataset, at most.")]
EpochsOption = Annotated[int, typer.Option(help="Epochs, at most.")]
RateOption = Annotated[float, typer.Option(help="Learning rate.")]
QuantizationOption = Annotated[str, typer.Option(help="nf4, or none.")]


def settings(
    data: Path,
    model: Path,
    *,
    datasets: str = DATASETS,
    rows: dict[str, int],
    epochs: int,
    learning_rate: float,
    quantization: str,
    **sections: Any,
) -> dict[str, Any]:
    """A config on real datasets, as a dictionary; ``sections`` replace or extend its sections."""
    config: dict[str, Any] = yaml.safe_load(REAL.read_text())
    config["model"] |= {"id": str(model.resolve()), "quantization": quantization}
    wanted = datasets.split(",")
    config["datasets"] = [
        entry | {"path": str(data.resolve() / entry["name"]), "max_rows": rows}
        for entry in config["datasets"]
        if entry["name"] in wanted
    ]
    missing = set(wanted) - {entry["name"] for entry in config["datasets"]}
    if missing:
        raise typer.BadParameter(f"unknown datasets: {', '.join(sorted(missing))}")
    config["training"] |= {"epochs": epochs, "learning_rate": learning_rate, "patience": 2}
    config["warm_start"] |= {"samples_per_dataset": 400, "learning_rate": 2e-3}
    config["ensemble"] = {"baselines": []}
    return merged(config, sections)


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``config`` with ``changes``, section by section."""
    found = dict(config)
    for key, value in changes.items():
        found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
    return found


def run_until(config: dict[str, Any], root: Path, until: Until) -> tuple[dict[str, Any], float]:
    """Run the pipeline that ends with ``until``; its summary and wall clock in seconds."""
    started = time.monotonic()
    summary = run_local(RunConfig.model_validate(config), root, until=until)
    return summary, time.monotonic() - started


def about(config: dict[str, Any], summary: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What must stand beside numbers: date, machine, versions, settings, rows, wall clock. No path, no id."""
    left_out = ("model", "datasets", "name", "tracking", "storage")
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "wall_clock_seconds": round(seconds),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()},
        "versions": summary["versions"],
        "settings": {key: value for key, value in config.items() if key not in left_out},
        "model": Path(config["model"]["id"]).name,
        "quantization": config["model"]["quantization"],
        "rows": config["datasets"][0]["max_rows"],
        "seed": summary["seed"],
    }


def keep(out: Path, found: dict[str, Any]) -> None:
    """Write the numbers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    note(f"wrote {out.name}")


def note(text: str) -> None:
    """A line of progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
