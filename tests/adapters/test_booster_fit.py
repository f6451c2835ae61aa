"""Boosters made on a tiny model: the step does what the first-order model says, and the loss falls."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from components.adapters.boost import Group
from components.adapters.booster_fit import fit_booster
from components.artifacts import Artifact, publish
from components.config import BoostingConfig, GradientsConfig, ModelConfig, TrainingConfig
from components.examples import Examples, collate, tokenize
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.inputs import Prepared, read_datasets
from components.language_model import (
    Base,
    answer_logits,
    attach_adapter,
    example_logits,
    load_adapters,
    load_base,
    save_adapter,
)
from components.language_model import margins as margins_of
from components.object_store import LocalStore
from components.on_demand import OnDemand
from components.step import Step, read_references
from components.tables import Logits, row_losses, write_features
from components.weighted_step import step_along
from tests.tiny_ensemble import write_base
from tests.tiny_training import LORA, publish_datasets, tiny_config, toy_dataset, toy_examples


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


def adapted(model: ModelConfig, scale: float = 0.1) -> tuple[PeftModel, Base]:
    base = load_base(model)
    adapter = attach_adapter(base, LORA, seed=2)
    random = torch.Generator().manual_seed(2)
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=random) * scale)
    return adapter.eval(), base


def gradients(adapter: PeftModel, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Margins [M] and their true gradients [M, p], a row at a time."""
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    margin, rows = [], []
    for i in range(len(examples)):
        batch = collate([(examples, i)])
        h = margins_of(answer_logits(adapter, batch), batch.label)[0]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(h, parameters)]).numpy())
        margin.append(h.item())
    return np.array(margin), np.stack(rows)


def flat(adapter: PeftModel) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in adapter.parameters() if p.requires_grad]).numpy()


def test_the_step_is_the_weighted_sum_of_gradients_and_moves_margins_as_they_say(model: ModelConfig) -> None:
    adapter, base = adapted(model)
    parts = [toy_examples(10, 0), toy_examples(7, 1)]
    rng = np.random.default_rng(0)
    found = [gradients(adapter, part) for part in parts]
    norm = np.linalg.norm(np.concatenate([rows for _, rows in found]), axis=1).mean()
    coefficients = [rng.normal(size=len(part)) * 0.02 / norm**2 for part in parts]
    expected = sum(a @ rows for a, (_, rows) in zip(coefficients, found, strict=True))

    before = flat(adapter)
    step_along(adapter, base, parts, coefficients, batch_tokens=40)  # several batches
    np.testing.assert_allclose(flat(adapter) - before, expected, atol=1e-6)
    assert all(p.grad is None or not p.grad.any() for p in adapter.parameters())

    for part, (margin, rows) in zip(parts, found, strict=True):
        after, _ = gradients(adapter, part)
        predicted, actual = rows @ expected, after - margin
        assert np.abs(predicted).max() > 5e-3  # far above rounding
        assert np.linalg.norm(actual - predicted) < 0.02 * np.linalg.norm(predicted)


def test_only_the_adapter_moves(model: ModelConfig) -> None:
    adapter, base = adapted(model)
    frozen = {name: p.detach().clone() for name, p in adapter.named_parameters() if not p.requires_grad}
    part = toy_examples(4, 0)
    step_along(adapter, base, [part], [np.full(4, 0.1)], batch_tokens=64)
    assert all(torch.equal(p, frozen[name]) for name, p in adapter.named_parameters() if name in frozen)


class Work:
    """A run up to its boosters: two datasets, a start, features there, and a group that has learnt nothing yet."""

    def __init__(self, model: ModelConfig, folder: Path, method: str) -> None:
        boosting = BoostingConfig(method=method, shrinkage=0.5)
        training = TrainingConfig(epochs=3, learning_rate=1e-2, batch_size=8)
        gradients = GradientsConfig(samples_per_dataset=24, dim=200, batch_tokens=1024)
        config = tiny_config(model, folder / "store", boosting=boosting, training=training, gradients=gradients)
        datasets = [toy_dataset("mood", seed=1, rows=(24, 16, 8)), toy_dataset("tone", seed=2, rows=(40, 16, 8))]
        store = LocalStore(folder / "store")
        publish_datasets(store, datasets, folder / "datasets")
        self.folder = folder
        self.step = Step("boost", config.model_dump_json(), "run", part="group-0")
        self.prepared: Prepared = read_datasets(self.step, read_references(folder / "datasets"))
        self.adapter, self.base = adapted(model)
        self.theta = publish(store, "start", {}, self._write_start)
        self.group = self._group()

    def _write_start(self, folder: Path) -> dict[str, int]:
        save_adapter(self.adapter, folder, self.base)
        return {}

    def examples(self, name: str, split: str) -> Examples:
        examples = tokenize(self.prepared[name], split, self.base.tokenizer, 128)  # type: ignore[arg-type]
        return examples.take(np.arange(1, 21)) if split == "train" else examples  # features of some rows only

    def _group(self) -> Group:
        names = ["mood", "tone"]
        projection = Projection(200, 0, "count_sketch", self.base.device)
        features: dict[str, Artifact] = {}
        for name in names:

            def write(folder: Path, name: str = name) -> dict[str, int]:
                found = projected_gradients(self.adapter, self.base, self.examples(name, "train"), projection, 1024)
                write_features(folder, "train", found)
                return {}

            features[name] = publish(self.step.store, "features", {"name": name}, write)
        start = {}
        for name in names:
            for split in ("train", "validation"):
                examples = self.examples(name, split)
                logits = example_logits(self.adapter, self.base, examples)
                start[name, split] = Logits(examples.row, logits, examples.label)
        logits = {at: table.logits.astype(np.float64) for at, table in start.items()}
        return Group("group-0", names, logits, start, features)  # type: ignore[arg-type]

    def boosted(self) -> tuple[PeftModel, dict[str, object]]:
        """The booster, loaded from the folder it was written to, and its facts."""
        out = self.folder / "booster"
        facts = fit_booster(self.step, OnDemand(self.step), self.prepared, self.theta, self.group, "job", out)
        return load_adapters(load_base(self.step.config.model), {"default": out}), facts

    def loss(self, booster: PeftModel | None, split: str) -> float:
        """The group's loss, mean over datasets, with ``eta (z_b - z*)`` added."""
        losses = []
        for name in self.group.members:
            logits = self.group.logits[name, split].copy()  # type: ignore[index]
            start = self.group.start[name, split]  # type: ignore[index]
            if booster is not None:
                moved = example_logits(booster, self.base, self.examples(name, split))
                logits += self.step.config.boosting.shrinkage * (moved - start.logits)
            losses.append(row_losses(logits, start.label).mean())
        return float(np.mean(losses))


@pytest.mark.parametrize("method", ["linear", "trained"])
def test_a_booster_lowers_the_loss_of_a_group_that_has_learnt_little(
    model: ModelConfig, tmp_path: Path, method: str
) -> None:
    work = Work(model, tmp_path, method)
    booster, facts = work.boosted()
    assert work.loss(booster, "train") < 0.9 * work.loss(None, "train")
    assert work.loss(booster, "validation") < work.loss(None, "validation")
    assert facts["method"] == method
    assert facts["flops"] == work.step.flops > 0
    assert len(facts["curve"]) == (0 if method == "linear" else 1)  # type: ignore[arg-type]
    assert list(work.step.store.keys("checkpoints/")) == []


def test_a_linear_booster_moves_margins_towards_the_residuals(model: ModelConfig, tmp_path: Path) -> None:
    """Rows the group gets right already are left alone: their residual is nothing."""
    work = Work(model, tmp_path, "linear")
    for name in work.group.members:
        label = work.group.start[name, "train"].label
        work.group.logits[name, "train"] = np.where(np.eye(2)[label] == 1, 20.0, -20.0)
    booster, _ = work.boosted()
    start = work.group.start["mood", "validation"].logits
    moved = example_logits(booster, work.base, work.examples("mood", "validation"))
    np.testing.assert_allclose(moved, start, atol=1e-4)


def test_a_trained_booster_builds_upon_the_group(model: ModelConfig, tmp_path: Path) -> None:
    """Where the group is sure of everything already, nothing is left to learn."""
    work = Work(model, tmp_path, "trained")
    for split in ("train", "validation"):
        for name in work.group.members:
            label = work.group.start[name, split].label  # type: ignore[index]
            work.group.logits[name, split] = np.where(np.eye(2)[label] == 1, 40.0, -40.0)  # type: ignore[index]
    _, facts = work.boosted()
    curve: list[dict[str, float]] = facts["curve"]  # type: ignore[assignment]
    assert curve[0]["train_loss"] < 1e-6
