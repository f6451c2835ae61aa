"""Train the active adapter on one or several datasets: the recipe of the warm start, of groups and of boosters.

transformers' Trainer does the loop, the optimiser, checkpoints and early stopping. Ours are the loss (the margin's,
so that training and surrogate minimise the same thing), the order of batches (datasets as often as the surrogate
weighs them, rows of similar length together) and how several processes share one job (``parallel.py``).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import set_seed

from components import parallel
from components.checkpoints import Checkpoints
from components.examples import Batch, Examples, collate
from components.finite import check_losses
from components.language_model import Base, answer_logits, margins
from components.object_store import ObjectStore
from components.schedule import batch_order
from components.short_memory import Parts
from components.validation_loss import validation_loss

_log = logging.getLogger(__name__)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over as many rows as the datasets have together; may be a fraction.
        patience: epochs without a better validation loss before stopping; None trains to the end and keeps the last.
        learning_rate_setting: where the user finds the learning rate, for messages.
        size_exponent: 0 shows the datasets equally often, 1 in proportion to their size.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    seed: int
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    learning_rate_setting: str = "training.learning_rate"
    size_exponent: float = 0.0
    patience: int | None = None
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Material:
    """The rows of one dataset as training sees them.

    Attributes:
        offset: [N, C] logits added to the model's while training (what a booster builds upon), or None.
    """

    train: Examples
    validation: Examples
    offset: np.ndarray | None = None


@dataclass(frozen=True)
class Fitted:
    """What training found.

    Attributes:
        curve: one entry an evaluation: epoch, train_loss, validation_loss (nats, mean over datasets).
        tokens: tokens that went forward and backward, padding included.
        squared: sum over training sequences of their padded length squared (for attention's FLOPs).
    """

    curve: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    squared: int = 0


def fit(
    model: PeftModel,
    base: Base,
    material: Sequence[Material],
    recipe: Recipe,
    store: ObjectStore,
    job: str,
    progress: Progress,
    *,
    shard_base: bool = False,
    say: Callable[[str], None] = _log.warning,
) -> Fitted:
    """Train the active adapter in place; with patience, it ends at its best validation loss.

    Where several processes call this together, they share each batch and all end with the same adapter.

    Args:
        job: names the job's checkpoints in the store; the same name goes on where a killed run was.
        shard_base: keep only a share of the base's layers in each process; it stays so afterwards.
        say: told when memory runs out and batches are done in parts.

    Raises:
        UserError: the loss is no longer finite.
    """
    lengths = [[len(ids) for ids in part.train.ids] for part in material]
    order = batch_order(lengths, recipe.epochs, recipe.batch_size, recipe.size_exponent, recipe.seed)
    # Rounded down: rounded up, the last epoch would end without its evaluation and could never be the best.
    steps_per_epoch = max(1, int(len(order) / max(1.0, recipe.epochs)))
    set_seed(recipe.seed)
    parallel.leave_unwrapped(model)
    if shard_base:
        parallel.shard_base(model)
    with parallel.shared_folder() as folder:
        rows, checkpoints = _Rows(material), Checkpoints(store, job, folder)
        trainer = _MarginTrainer(
            model=model,
            args=_arguments(base, recipe, folder, len(order), steps_per_epoch),
            train_dataset=rows,
            eval_dataset=rows,  # Trainer asks for one; what is evaluated is `material`'s validation rows
            data_collator=_collate,
            callbacks=_callbacks(recipe, checkpoints, progress),
        )
        trainer.base, trainer.material, trainer.order, trainer.parts = base, material, order, Parts(say)
        trainer.learning_rate_setting = recipe.learning_rate_setting
        trainer.train(resume_from_checkpoint=checkpoints.restore())
        checkpoints.clear()
        model.eval()
        return _fitted(trainer, lengths, steps_per_epoch)


def _callbacks(recipe: Recipe, checkpoints: Checkpoints, progress: Progress) -> list[TrainerCallback]:
    early = [EarlyStoppingCallback(recipe.patience)] if recipe.patience is not None else []
    return [*early, checkpoints, *([_Report(progress)] if parallel.rank() == 0 else [])]


def _fitted(trainer: "_MarginTrainer", lengths: list[list[int]], steps_per_epoch: int) -> Fitted:
    seen = trainer.order[: trainer.state.global_step]
    padded = [(len(batch), max(lengths[d][i] for d, i in batch)) for batch in seen]
    return Fitted(
        _curve(trainer.state.log_history, steps_per_epoch),
        sum(rows * longest for rows, longest in padded),
        sum(rows * longest**2 for rows, longest in padded),
    )


class _Rows(Dataset[tuple[Material, int, float]]):
    """Rows addressed by (dataset, position, weight)."""

    def __init__(self, material: Sequence[Material]) -> None:
        self.material = material

    def __len__(self) -> int:
        return sum(len(part.train) for part in self.material)

    def __getitem__(self, where: tuple[int, int, float]) -> tuple[Material, int, float]:
        dataset, i, weight = where
        return self.material[dataset], i, weight


def _collate(rows: list[tuple[Material, int, float]]) -> dict[str, torch.Tensor]:
    batch = collate([(part.train, i) for part, i, _ in rows])
    offset = torch.zeros(batch.label_tokens.shape)
    for b, (part, i, _) in enumerate(rows):
        if part.offset is not None:
            offset[b, : part.offset.shape[1]] = torch.from_numpy(part.offset[i])
    weight = torch.tensor([weight for _, _, weight in rows])
    return {
        **vars(batch),
        "offset": offset,
        "weight": weight,
        "row": torch.tensor([p.train.row[i] for p, i, _ in rows]),
    }


class _MarginTrainer(Trainer):
    """Trainer with the margin's loss, our order of batches and our sharing of them; its interface leaves these open."""

    model: PeftModel
    train_dataset: Dataset[tuple[Material, int, float]]
    base: Base
    material: Sequence[Material]
    order: list[list[tuple[int, int]]]
    learning_rate_setting: str
    parts: Parts

    def get_train_dataloader(self) -> DataLoader[Any]:
        shares = [parallel.share(batch, parallel.rank(), parallel.size()) for batch in self.order]
        return DataLoader(self.train_dataset, batch_sampler=shares, collate_fn=self.data_collator)

    def training_step(self, model: Any, inputs: Any, *more: Any) -> torch.Tensor:
        step = super().training_step
        loss = self.parts.sum(inputs, lambda rows: step(model, rows, *more), model.zero_grad)
        parallel.average_gradients(self.model)
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        offset, weight, row = (inputs.pop(name) for name in ("offset", "weight", "row"))
        batch = Batch(**inputs)
        h = margins(answer_logits(self.accelerator.unwrap_model(model), batch) + offset, batch.label)
        losses = torch.nn.functional.softplus(-h)
        check_losses(losses, row, self.learning_rate_setting)
        return (weight * losses).sum()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        validation = [part.validation for part in self.material]
        metrics = {"eval_loss": validation_loss(self.model, self.base, validation, self.learning_rate_setting)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Report(TrainerCallback):
    """Pass steps and the last validation loss on to whoever shows progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.note = progress, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps, self.note)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note = f"validation loss {kwargs['metrics']['eval_loss']:.3f}"


def _arguments(base: Base, recipe: Recipe, folder: Path, steps: int, steps_per_epoch: int) -> TrainingArguments:
    watched = recipe.patience is not None
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(recipe.warmup_ratio * steps),
        weight_decay=recipe.weight_decay,
        gradient_checkpointing=recipe.gradient_checkpointing,
        eval_strategy="steps" if watched else "no",
        eval_steps=steps_per_epoch,
        save_strategy="steps",
        save_steps=steps_per_epoch,
        save_total_limit=2,
        save_on_each_node=True,  # the best checkpoint is read back on every machine
        load_best_model_at_end=watched,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=steps_per_epoch,
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,  # early stopping's count of epochs without a better loss
        seed=recipe.seed,
        use_cpu=base.device.type == "cpu",
        remove_unused_columns=False,
        label_names=[],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=base.device.type == "cuda",
    )


def _curve(history: list[dict[str, float]], steps_per_epoch: int) -> list[dict[str, float]]:
    """One entry an evaluation (or log line) from the Trainer's log."""
    points: dict[int, dict[str, float]] = {}
    for entry in history:
        point = points.setdefault(int(entry["step"]), {"epoch": entry["step"] / steps_per_epoch})
        if "loss" in entry:
            point["train_loss"] = entry["loss"]
        if "eval_loss" in entry:
            point["validation_loss"] = entry["eval_loss"]
    return [points[step] for step in sorted(points) if len(points[step]) > 1]
