"""Adapters and their logits, trained in this process with the product's recipe and kept under the product's keys.

A group's adapter is thus the same artifact as the one `loraloom validate` fine-tunes for that subset and seed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.truth import setting
from components.adapter_files import SETTINGS, WEIGHTS
from components.adapters.train import obtain_adapter
from components.artifacts import Artifact, digest_of, load
from components.base_model import model_inputs
from components.config import RunConfig
from components.config_file import resolved
from components.inputs import START, Prepared, outputs_digest, point_of, read_datasets, weights_digest
from components.label_logits import obtain_logits
from components.language_model import attach_adapter, save_adapter
from components.on_demand import OnDemand
from components.prepared import SplitName
from components.step import Step
from components.training import Material, Recipe, fit


class Members:
    """Makes adapters, and gives their logits.

    Args:
        step: not entered; its store keeps everything.
        theta: theta* as `warm_start` left it.
        point: where gradients were taken; theta* without a look-ahead.
        features: feature artifacts by dataset.
        plan: FLOPs of choosing the groups, once features are there: solver and search.
    """

    def __init__(
        self, step: Step, prepared: Prepared, theta: Artifact, point: Artifact, features: dict[str, Artifact], plan: int
    ) -> None:
        self.step, self.prepared, self.theta, self.point, self.features = step, prepared, theta, point, features
        self.plan = plan
        self._loaded: tuple[str, OnDemand] | None = None  # the adapter asked for last

    @classmethod
    def of(cls, config: dict[str, Any], root: Path, summary: dict[str, Any]) -> Self:
        """Those of a run that has come as far as the partition."""
        settings = resolved(RunConfig.model_validate(config), root)
        step, keys = Step("train", settings.model_dump_json(), summary["run_id"]), setting.keys_of(summary)
        names = [entry["name"] for entry in config["datasets"]]
        prepared = read_datasets(step, {name: keys[f"dataset/{name}"] for name in names})
        features = {name: load(step.store, keys[f"features/{name}"]) for name in names}
        plan = sum(load(step.store, keys[label]).facts["flops"] for label in ("affinity", "partition"))
        return cls(step, prepared, load(step.store, keys[START]), point_of(step, keys), features, plan)

    @property
    def spent(self) -> dict[str, int]:
        """FLOPs of the warm start, and of what the features took: the look-ahead and extraction."""
        made = [*self.features.values(), *([self.point] if self.point.key != self.theta.key else [])]
        return {"start": self.theta.facts["flops"], "features": sum(artifact.facts["flops"] for artifact in made)}

    def trained(self, names: Sequence[str], seed: int) -> Artifact:
        """An adapter on the datasets ``names``, from theta*."""
        return self._obtain(self.theta, names, seed)

    def from_raw(self, names: Sequence[str], seed: int) -> Artifact:
        """An adapter on the datasets ``names`` from the seeded initialisation, as without a warm start."""
        config = self.step.config

        def write(folder: Path) -> dict[str, Any]:
            base = OnDemand(self.step).base
            save_adapter(attach_adapter(base, config.lora, config.seed), folder, base)
            return {"flops": 0}

        inputs = {"model": model_inputs(config.model), "lora": config.lora.model_dump(), "seed": config.seed}
        return self._obtain(self.step.obtain("raw", "raw", inputs, write), names, seed)

    def brief(self, names: Sequence[str], seed: int, share: float, start: Artifact | None = None) -> Artifact:
        """An adapter with a share of the epochs; the last is kept: there is nothing to stop early.

        Args:
            start: where it begins, theta* by default.
        """
        settings, start = self.step.config.training, start or self.theta
        inputs = {
            "model": model_inputs(self.step.config.model),
            "start": start.digest,
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
                weight_decay=settings.weight_decay,
                size_exponent=settings.size_exponent,
                gradient_checkpointing=settings.gradient_checkpointing,
            )
            model, job = work.trainable(start.folder), f"truth-{digest_of(inputs)[:24]}"
            fitted = fit(model, work.base, material, recipe, self.step.store, job, lambda *_: None)
            save_adapter(model, folder, work.base)
            return {"flops": work.cost(model).training(fitted.tokens, fitted.squared)}

        return self.step.obtain("brief", "member", inputs, write)

    def averaged(self, adapters: Sequence[Artifact]) -> Artifact:
        """One adapter whose weights are the mean of others' (they began at the same point)."""

        def write(folder: Path) -> dict[str, Any]:
            parts = [load_file(adapter.folder / WEIGHTS) for adapter in adapters]
            mean = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
            save_file({name: value.contiguous() for name, value in mean.items()}, folder / WEIGHTS)
            (folder / SETTINGS).write_text((adapters[0].folder / SETTINGS).read_text())
            return {"flops": sum(adapter.facts["flops"] for adapter in adapters)}

        return self.step.obtain("averaged", "member", {"mean_of": [one.digest for one in adapters]}, write)

    def logits(
        self, adapter: Artifact | None, name: str, split: SplitName, index: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] of an adapter (None: of theta*) on a dataset's split, and the labels [N].

        Args:
            index: positions in the split, all by default.
        """
        folder = self.theta.folder if adapter is None else adapter.folder
        digest = self.theta.digest if adapter is None else weights_digest(adapter)
        if self._loaded is None or self._loaded[0] != digest:
            self._loaded = digest, OnDemand(self.step)
        work, dataset = self._loaded[1], self.prepared[name]
        outputs, compute = outputs_digest(self.step, digest), work.logits(folder, dataset, split)
        table = obtain_logits(self.step, outputs, dataset, split, compute, model="member", index=index)
        return table.logits.astype(np.float64), table.label

    def _obtain(self, start: Artifact, names: Sequence[str], seed: int) -> Artifact:
        config, work = self.step.config.model_dump_json(), OnDemand(self.step)
        return obtain_adapter(self.step, config, work, self.prepared, start, "member", list(names), seed)
