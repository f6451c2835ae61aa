"""Train the active adapter on one or several datasets: the recipe of the warm start, of groups and of boosters.

transformers' Trainer does the loop, the optimiser, checkpoints and early stopping. Ours are the loss (the margin's,
so that training and surrogate minimise the same thing), the order of batches (datasets as often as the surrogate
weighs them, rows of similar length together) and the copies of checkpoints in the store, by which a job that was
killed goes on where it was. Checkpoints hold the optimiser as torch writes it, are read with ``weights_only`` and
disappear with the finished job.
"""

import shutil
import tempfile
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

from components.errors import UserError
from components.examples import Batch, Examples, collate
from components.language_model import Base, answer_logits, example_logits, margins
from components.object_store import ObjectStore
from components.schedule import batch_order

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over as many rows as the datasets have together; may be a fraction.
        patience: epochs without a better validation loss before stopping; None trains to the end and keeps the last.
        size_exponent: 0 shows the datasets equally often, 1 in proportion to their size.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    seed: int
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
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
) -> Fitted:
    """Train the active adapter in place; with patience, it ends at its best validation loss.

    Args:
        job: names the job's checkpoints in the store; the same name goes on where a killed run was.

    Raises:
        UserError: the loss is no longer finite.
    """
    lengths = [[len(ids) for ids in part.train.ids] for part in material]
    order = batch_order(lengths, recipe.epochs, recipe.batch_size, recipe.size_exponent, recipe.seed)
    # Rounded down: rounded up, the last epoch would end without its evaluation and could never be the best.
    steps_per_epoch = max(1, int(len(order) / max(1.0, recipe.epochs)))
    set_seed(recipe.seed)
    with tempfile.TemporaryDirectory(prefix="loraloom-train-") as folder:
        rows, checkpoints = _Rows(material), _Checkpoints(store, job, Path(folder))
        trainer = _MarginTrainer(
            model=model,
            args=_arguments(base, recipe, Path(folder), len(order), steps_per_epoch),
            train_dataset=rows,
            eval_dataset=rows,  # Trainer asks for one; what is evaluated is `material`'s validation rows
            data_collator=_collate,
            callbacks=[
                *([EarlyStoppingCallback(recipe.patience)] if recipe.patience is not None else []),
                checkpoints,
                _Report(progress),
            ],
        )
        trainer.base, trainer.material, trainer.order = base, material, order
        trainer.train(resume_from_checkpoint=checkpoints.restore())
        checkpoints.clear()
        model.eval()
        padded = [(len(batch), max(lengths[d][i] for d, i in batch)) for batch in order[: trainer.state.global_step]]
        return Fitted(
            _curve(trainer.state.log_history, steps_per_epoch),
            sum(rows * longest for rows, longest in padded),
            sum(rows * longest**2 for rows, longest in padded),
        )


class _Rows(Dataset[tuple[Material, int]]):
    """Rows addressed by (dataset, position)."""

    def __init__(self, material: Sequence[Material]) -> None:
        self.material = material

    def __len__(self) -> int:
        return sum(len(part.train) for part in self.material)

    def __getitem__(self, where: tuple[int, int]) -> tuple[Material, int]:
        return self.material[where[0]], where[1]


def _collate(rows: list[tuple[Material, int]]) -> dict[str, torch.Tensor]:
    batch = collate([(part.train, i) for part, i in rows])
    offset = torch.zeros(batch.label_tokens.shape)
    for b, (part, i) in enumerate(rows):
        if part.offset is not None:
            offset[b, : part.offset.shape[1]] = torch.from_numpy(part.offset[i])
    return {**vars(batch), "offset": offset}


class _MarginTrainer(Trainer):
    """Trainer with the margin's loss and our order of batches; these two are what its interface leaves to override."""

    model: PeftModel
    train_dataset: Dataset[tuple[Material, int]]
    base: Base
    material: Sequence[Material]
    order: list[list[tuple[int, int]]]

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_sampler=self.order, collate_fn=self.data_collator)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        offset = inputs.pop("offset")
        batch = Batch(**inputs)
        h = margins(answer_logits(self.accelerator.unwrap_model(model), batch) + offset, batch.label)
        loss = torch.nn.functional.softplus(-h).mean()
        if not torch.isfinite(loss):
            raise UserError("training diverged: the loss is not finite", remedy="lower training.learning_rate")
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        metrics = {"eval_loss": validation_loss(self.model, self.base, self.material)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def validation_loss(model: PeftModel, base: Base, material: Sequence[Material]) -> float:
    """Mean over datasets of the mean cross-entropy of their validation rows, nats."""
    losses = []
    for part in material:
        logits = torch.from_numpy(example_logits(model, base, part.validation))
        h = margins(logits, torch.tensor(part.validation.label))
        losses.append(torch.nn.functional.softplus(-h.double()).mean().item())
    return float(np.mean(losses))


class _Report(TrainerCallback):
    """Pass steps and the last validation loss on to whoever shows progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.note = progress, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps, self.note)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note = f"validation loss {kwargs['metrics']['eval_loss']:.3f}"


class _Checkpoints(TrainerCallback):
    """Copies of the newest checkpoint in the store; the name of the whole one is written last."""

    def __init__(self, store: ObjectStore, job: str, folder: Path) -> None:
        self.store, self.prefix, self.folder = store, f"checkpoints/{job}", folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:
            return  # the trainer cannot go on from an end: whoever is killed now repeats the last epoch
        before = list(self.store.keys(f"{self.prefix}/"))
        paths = [path for path in sorted(self.folder.glob("checkpoint-*/**/*")) if path.is_file()]
        # The trainer keeps the newest and the best one; going on needs both.
        names = {f"{self.prefix}/{path.relative_to(self.folder).as_posix()}": path for path in paths}
        for key, path in names.items():
            self.store.upload(path, key)
        self.store.write(f"{self.prefix}/newest", f"checkpoint-{state.global_step}".encode())
        for key in before:
            if key not in names and not key.endswith("/newest"):
                self.store.delete(key)

    def restore(self) -> str | None:
        """Bring the checkpoints back; the folder of the newest, or None where there is none."""
        if not self.store.exists(f"{self.prefix}/newest"):
            return None
        newest = self.folder / self.store.read(f"{self.prefix}/newest").decode()
        for key in self.store.keys(f"{self.prefix}/checkpoint-"):
            self.store.download(key, self.folder / key.removeprefix(f"{self.prefix}/"))
        return str(newest)

    def clear(self) -> None:
        """Forget the checkpoints, here and in the store: the job is done."""
        self.store.delete(f"{self.prefix}/newest")  # first: what it names is no longer whole
        for key in list(self.store.keys(f"{self.prefix}/")):
            self.store.delete(key)
        for path in self.folder.glob("checkpoint-*"):
            shutil.rmtree(path)


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
