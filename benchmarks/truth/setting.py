"""What the studies of this folder share: the common options, the config made of them, and what is kept of a run.

Paths are options, never settings: DATA holds the folders named in ``benchmarks/real/config.yaml``. Rows, epochs and
rate are common to all studies on purpose: they then share theta*, features and fine-tunes.
"""

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import ValidationError

from components.config import RunConfig

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# of the config: what decides results, defaults too
SECTIONS = (
    "lora", "warm_start", "gradients", "surrogate", "partition", "training", "boosting", "ensemble", "validation",
    "selection",
)  # fmt: skip
# beside all numbers: see :func:`about`
ABOUT = (
    "date", "wall_clock_seconds", "machine", "versions", "settings", "model", "quantization", "dtype", "datasets",
    "rows", "seed",
)  # fmt: skip
REAL = HERE.parent / "real" / "config.yaml"
# Twelve of the sixteen: every subset of twelve can be estimated. Left out are the longest texts and the two datasets
# whose samples are too small or whose labels are too many for the noise to be averaged out in hours.
DATASETS = (
    "clinc_domain,cola,financial_phrasebank,politeness,sms_spam,sst2,subj,trec,tweet_emotion,tweet_irony,"
    "tweet_offensive,wic"
)


@dataclass(frozen=True)
class Setting:
    """The options that all studies have in common.

    Attributes:
        data: folder with one folder a dataset.
        model: base model in transformers layout.
        root: where runs work; what is finished there is reused.
        out: folder that the numbers go to, one JSON file a table.
        datasets: names.
        train, validation, test: rows a dataset, at most.
        epochs, learning_rate: of every fine-tune, at most so many epochs.
        warm_start: epochs of the warm start, over at most 400 rows a dataset, and of the look-ahead.
        quantization: ``nf4`` or ``none``.
    """

    data: Path
    model: Path
    root: Path
    out: Path
    datasets: tuple[str, ...]
    train: int
    validation: int
    test: int
    epochs: int
    learning_rate: float
    warm_start: float
    quantization: str

    def config(self, **sections: Any) -> dict[str, Any]:
        """A config on real datasets, as a dictionary; ``sections`` replace or extend its sections.

        Raises:
            typer.BadParameter: a dataset is unknown, or a setting is none that the product takes.
        """
        config: dict[str, Any] = yaml.safe_load(REAL.read_text())
        config["model"] |= {"id": str(self.model.resolve()), "quantization": self.quantization}
        rows = {"train": self.train, "validation": self.validation, "test": self.test}
        config["datasets"] = [
            entry | {"path": str(self.data.resolve() / entry["name"]), "max_rows": rows}
            for entry in config["datasets"]
            if entry["name"] in self.datasets
        ]
        missing = set(self.datasets) - {entry["name"] for entry in config["datasets"]}
        if missing:
            raise typer.BadParameter(f"unknown datasets: {', '.join(sorted(missing))}")
        config["training"] |= {"epochs": self.epochs, "learning_rate": self.learning_rate, "patience": 2}
        config["warm_start"] |= {
            "epochs": self.warm_start,
            "lookahead": self.warm_start,
            "samples_per_dataset": 400,
            "learning_rate": 2e-3,
        }
        config["gradients"] = {"samples_per_dataset": max(self.train, self.validation)}
        config["ensemble"] = {"baselines": []}
        made = merged(config, sections)
        try:
            RunConfig.model_validate(made)
        except ValidationError as error:
            told = [[".".join(map(str, one["loc"])), one["msg"]] for one in error.errors()]
            raise typer.BadParameter("; ".join(": ".join(filter(None, parts)) for parts in told)) from error
        return made

    def keep(self, table: str, found: dict[str, Any]) -> None:
        """Write a table's numbers."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{table}.json").write_text(json.dumps(found, indent=1) + "\n")
        note(f"wrote {table}.json")

    def add(self, table: str, name: str, row: dict[str, Any]) -> None:
        """Write one named row of a table; the others stay."""
        self.keep(table, {**self.kept(table), name: row})

    def kept(self, table: str) -> dict[str, Any]:
        """What an earlier call has written of a table; empty without one."""
        path = self.out / f"{table}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def needed(self, table: str) -> dict[str, Any]:
        """What an earlier call has written of a table that another is made of.

        Raises:
            typer.BadParameter: there was none.
        """
        found = self.kept(table)
        if not found:
            raise typer.BadParameter(f"there is no {table}.json in {self.out}; run `{table}` first")
        return found

    def refuse_other(self, table: str, found: dict[str, Any]) -> None:
        """Refuse to put numbers of this model, data and recipe beside those of another.

        Args:
            found: what an earlier call has written of ``table``, or of one of its rows.

        Raises:
            typer.BadParameter: they differ.
        """
        ours = alike(settled(self.config()))
        if other := [name for name, value in alike(found).items() if ours.get(name) != value]:
            raise typer.BadParameter(
                f"{table}.json in {self.out} is of other {' and '.join(other)}: give those options, or another --out"
            )

    def refuse_to_mix(self, table: str) -> None:
        """Refuse to add rows to a table whose rows are of another model, data or recipe.

        Raises:
            typer.BadParameter: they are.
        """
        for found in list(self.kept(table).values())[:1]:  # the rest was held to it, too
            self.refuse_other(table, found)


def alike(found: dict[str, Any]) -> dict[str, Any]:
    """What is the same for all rows of a table, of what :func:`settled` tells of one, by name."""
    recipe = {
        f"{section}.{name}": value
        for section in ("training", "warm_start")
        for name, value in found["settings"][section].items()
    }
    return {**{name: found[name] for name in ("model", "datasets", "rows", "seed")}, **recipe}


def refuse_unknown(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are none.

    Args:
        what: the plural of what they name.

    Raises:
        typer.BadParameter: one of ``asked`` is not ``known``.
    """
    if unknown := set(asked) - set(known):
        raise typer.BadParameter(f"unknown {what}: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``config`` with ``changes``, section by section."""
    found = dict(config)
    for key, value in changes.items():
        found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
    return found


def keys_of(summary: dict[str, Any]) -> dict[str, str]:
    """The store's keys of everything that a run passed on, by label."""
    return {label: entry["key"] for label, entry in summary["artifacts"].items()}


def about(config: dict[str, Any], summary: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What must stand beside numbers: date, machine, versions, settings, rows, wall clock. No path, no id."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "wall_clock_seconds": round(seconds),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()},
        "versions": summary["versions"],
        **settled(config),
    }


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """What of :func:`about` is known before anything runs."""
    whole = RunConfig.model_validate(config).model_dump(mode="json")
    return {
        "settings": {section: whole[section] for section in SECTIONS},
        "model": Path(config["model"]["id"]).name,
        "quantization": config["model"]["quantization"],
        "dtype": config["model"]["dtype"],
        "datasets": [entry["name"] for entry in config["datasets"]],
        "rows": config["datasets"][0]["max_rows"],
        "seed": whole["seed"],
    }


def about_again(found: dict[str, Any]) -> dict[str, Any]:
    """What :func:`about` put into a study's numbers, for a table that is made of them."""
    return {key: found[key] for key in ABOUT}


def note(text: str) -> None:
    """A line of progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
