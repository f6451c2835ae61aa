"""Run the benchmarks of engine and serving: one table on the screen, ``benchmarks/results.json`` beside it.

python -m benchmarks.run [--data FOLDER] [--model FOLDER] [--only NAME]

Each module of ``benchmarks/engine`` and ``benchmarks/serving`` runs in a process of its own: what one leaves in memory
disturbs no other.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipelines.local import WAITING

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
FOLDERS = ("engine", "serving")
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "numpy", "scipy", "scikit-learn", "cvxpy")


def main(
    only: Annotated[
        str, typer.Option(help="A folder, or modules whose name begins so; their rows replace those in the file.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Folder with the datasets of benchmarks/real; the demo's if left out.")
    ] = "",
    model: Annotated[str, typer.Option(help="Base model in transformers layout; the demo's if left out.")] = "",
    threads: Annotated[int, typer.Option(help="Threads of the arithmetic.")] = 2,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = RESULTS,
) -> None:
    """Run all benchmarks, or some; exit code 1 where a target is missed or a module fails."""
    console = Console()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    environment |= WAITING
    environment |= {"LORALOOM_BENCH_DATA": data, "LORALOOM_BENCH_MODEL": model}
    about = {
        "versions": {name: version(name) for name in LIBRARIES},
        "machine": machine(threads),
        "data": "given" if data else "demo",
        "model": "given" if model else "demo",
    }
    found, failed = _earlier(out, about) if only and out.is_file() else {}, []
    for name, module in modules().items():
        if not (name.startswith(only) or only == module.split(".")[1]):
            continue
        with console.status(name):
            measured = _in_a_process(module, environment)
        if measured is None:
            failed.append(name)
        else:
            found[name] = measured
    about["date"] = datetime.now(UTC).date().isoformat()
    out.write_text(json.dumps({**about, "rows": {name: found[name] for name in sorted(found)}}, indent=1) + "\n")
    every = [row for name in sorted(found) for row in found[name]]
    console.print(table(every))
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    if failed or any(row["ok"] is False for row in every):
        raise typer.Exit(1)


def modules() -> dict[str, str]:
    """The benchmarks: name -> module."""
    paths = (path for folder in FOLDERS for path in sorted((HERE / folder).glob("[!_]*.py")))
    return {path.stem: f"benchmarks.{path.parent.name}.{path.stem}" for path in paths}


def _earlier(out: Path, about: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of an earlier run. What stands beside them has to be true of the new ones, too."""
    results = json.loads(out.read_text())
    if other := [name for name, value in about.items() if results.get(name) != value]:
        raise typer.BadParameter(
            f"{out} holds rows of other {' and '.join(other)}: run all benchmarks, or change --out"
        )
    return results["rows"]


def _in_a_process(module: str, environment: dict[str, str]) -> list[dict[str, Any]] | None:
    """The module's rows, or None where it failed; its messages are on stderr by then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.run", "--one", module, str(path)]
        ended = subprocess.run(command, env=environment, cwd=HERE.parent, check=False)
        return json.loads(path.read_text()) if ended.returncode == 0 else None


def one(module: str, path: Path) -> None:
    """Run one module in this process and write its rows."""
    rows = import_module(module).rows()
    path.write_text(json.dumps([{**asdict(row), "ok": row.ok} for row in rows], default=float))


def machine(threads: int) -> dict[str, Any]:
    """What ran it, without names."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.system(),
        "processor": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for a screen."""
    shown = Table("what", box=None, pad_edge=False)
    for column in ("value", "baseline", "ratio", "target"):
        shown.add_column(column, justify="right")
    shown.add_column("")
    for row in rows:
        verdict = {True: "[green]ok[/]", False: "[red]missed[/]", None: ""}[row["ok"]]
        shown.add_row(row["name"], *cells(row), verdict)
    return shown


def cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Value, baseline, ratio and target as text."""
    baseline = "" if row["baseline"] is None else f"{row['baseline']:.4g} {row['unit']}"
    sign = {"at most": "<=", "at least": ">="}[row["bound"]]
    target = "" if row["target"] is None else f"{sign} {row['target']:g}"
    return f"{row['value']:.4g} {row['unit']}", baseline, f"{row['ratio']:.3g}", target


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        typer.run(main)
