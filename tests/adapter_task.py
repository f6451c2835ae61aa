"""A run up to `train`, on two toy datasets: one adapter to train, alone or in several processes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from components.adapter_files import WEIGHTS
from components.adapters.fit_adapter import fit_adapter
from components.adapters.launch import train_in_processes
from components.adapters.task import Task, collect
from components.adapters.train import inputs_of
from components.artifacts import digest_of, publish
from components.cluster_config import StepResources
from components.config import ModelConfig, TrackingConfig, TrainingConfig
from components.inputs import read_datasets
from components.language_model import attach_adapter, load_base, save_adapter
from components.object_store import LocalStore
from components.on_demand import OnDemand
from components.step import Step, read_references
from tests.conftest import perturb
from tests.tiny_training import LORA, publish_datasets, tiny_config, toy_dataset

NAMES = ["mood", "tone"]
# 41 rows an epoch in batches of 8: every fifth batch or so is a single row, which two processes cannot share.
ROWS = {"mood": (24, 16, 8), "tone": (17, 13, 8)}
TRAINING = TrainingConfig(epochs=2, learning_rate=1e-2, batch_size=8, patience=2)


def weights_of(adapter: Path) -> dict[str, torch.Tensor]:
    """The weights in a PEFT folder."""
    return load_file(adapter / WEIGHTS)


class AdapterTask:
    """Everything `train` needs, in a folder."""

    def __init__(self, model: ModelConfig, folder: Path, training: TrainingConfig = TRAINING, **resources: Any) -> None:
        asked = {"train": StepResources(**resources)} if resources else {}
        tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
        self.config = tiny_config(model, folder / "store", training=training, resources=asked, tracking=tracking)
        self.store = LocalStore(folder / "store")
        datasets = [toy_dataset(name, seed=seed, rows=ROWS[name]) for seed, name in enumerate(NAMES)]
        publish_datasets(self.store, datasets, folder / "datasets")
        self.step = Step("train", self.config.model_dump_json(), "run", part="group-0")
        self.prepared = read_datasets(self.step, read_references(folder / "datasets"))
        self.theta = publish(self.store, "start", {}, self._write_start)
        inputs = inputs_of(self.step, self.prepared, self.theta, NAMES, self.config.seed)
        self.task = Task(
            self.config.model_dump_json(),
            "run",
            "group-0",
            NAMES,
            self.prepared.keys,
            self.theta.key,
            self.config.seed,
            digest_of(inputs)[:32],
        )
        self.folder = folder

    def _write_start(self, folder: Path) -> dict[str, Any]:
        base = load_base(self.config.model)
        model = attach_adapter(base, LORA, seed=3)
        perturb(model)
        save_adapter(model, folder, base)
        return {}

    def alone(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Weights and facts of the adapter trained in this process."""
        out = self.folder / "alone"
        out.mkdir()
        work = OnDemand(self.step)
        facts = fit_adapter(self.step, work, self.prepared, self.theta.folder, self.task, out)
        return weights_of(out), facts

    def together(self, processes: int = 2) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The same of several processes."""
        train_in_processes(self.step, self.task, processes)
        return self.collected()

    def collected(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What the processes delivered."""
        out = self.folder / "together"
        out.mkdir()
        facts = collect(self.store, self.task, out)
        return weights_of(out), facts
