"""Adapters and logits for the controls: trained with the product's recipe, found again by what they are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from components.artifacts import Artifact, digest_of
from components.base_model import model_inputs
from components.inputs import Prepared, outputs_digest, weights_digest
from components.label_logits import obtain_logits
from components.language_model import attach_adapter, save_adapter
from components.on_demand import OnDemand
from components.prepared import SplitName
from components.step import Step
from components.training import Material, Recipe, fit

WEIGHTS = "adapter_model.safetensors"


class Members:
    """Makes adapters, and gives their logits.

    Args:
        step: not entered; its store keeps everything.
        theta: theta* as `warm_start` left it.
    """

    def __init__(self, step: Step, prepared: Prepared, theta: Artifact) -> None:
        self.step, self.prepared, self.theta = step, prepared, theta
        self._loaded: tuple[str, OnDemand] | None = None  # the adapter asked for last

    def trained(self, names: Sequence[str], seed: int, *, share: float = 1.0, raw: bool = False) -> Artifact:
        """An adapter on the datasets ``names``.

        Args:
            share: of the epochs; below one, the last is kept whatever its loss, as there is nothing to stop early.
            raw: begin at the seeded initialisation instead of theta*.
        """
        settings = self.step.config.training
        inputs = {
            "model": model_inputs(self.step.config.model),
            "start": None if raw else self.theta.digest,
            "lora": self.step.config.lora.model_dump() if raw else None,
            "datasets": {name: self.prepared.digests[name] for name in sorted(names)},
            "training": settings.model_dump(),
            "share": share,
            "seed": seed,
        }

        def write(folder: Path) -> dict[str, Any]:
            work = OnDemand(self.step)
            material = [
                Material(work.examples(self.prepared[name], "train"), work.examples(self.prepared[name], "validation"))
                for name in sorted(names)
            ]
            recipe = Recipe(
                epochs=settings.epochs * share,
                learning_rate=settings.learning_rate,
                batch_size=settings.batch_size,
                seed=seed,
                warmup_ratio=settings.warmup_ratio,
                patience=settings.patience if share == 1 else None,
            )
            model = (
                attach_adapter(work.base, self.step.config.lora, self.step.config.seed)
                if raw
                else work.trainable(self.theta.folder)
            )
            job = f"truth-{digest_of(inputs)[:24]}"
            fitted = fit(model, work.base, material, recipe, self.step.store, job, lambda *_: None)
            save_adapter(model, folder, work.base)
            return {"flops": work.cost(model).training(fitted.tokens, fitted.squared), "curve": fitted.curve}

        return self.step.obtain("member", "member", inputs, write)

    def averaged(self, adapters: Sequence[Artifact]) -> Artifact:
        """One adapter whose weights are the mean of others' (they began at the same point)."""

        def write(folder: Path) -> dict[str, Any]:
            parts = [load_file(adapter.folder / WEIGHTS) for adapter in adapters]
            mean = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
            save_file({name: value.contiguous() for name, value in mean.items()}, folder / WEIGHTS)
            settings = (adapters[0].folder / "adapter_config.json").read_text()
            (folder / "adapter_config.json").write_text(settings)
            return {"flops": sum(adapter.facts["flops"] for adapter in adapters)}

        return self.step.obtain("member", "member", {"mean_of": [one.digest for one in adapters]}, write)

    def logits(self, adapter: Artifact | None, name: str, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] of an adapter (None: of theta*) on a dataset's split, and the labels [N]."""
        folder = self.theta.folder if adapter is None else adapter.folder
        digest = self.theta.digest if adapter is None else weights_digest(adapter)
        if self._loaded is None or self._loaded[0] != digest:
            self._loaded = digest, OnDemand(self.step)
        work, dataset = self._loaded[1], self.prepared[name]
        table = obtain_logits(
            self.step,
            outputs_digest(self.step, digest),
            dataset,
            split,
            work.logits(folder, dataset, split),
            model="member",
        )
        return table.logits.astype(np.float64), table.label
