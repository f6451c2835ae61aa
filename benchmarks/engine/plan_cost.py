"""What estimating subsets costs, and a whole plan, against fine-tuning them.

Estimating is warm start, look-ahead, extraction and solver; the plan is that and the search for a partition.
FLOPs are those of the full sizes: 400 rows a dataset for warm start and look-ahead, as many as the pipeline takes for
features, all training rows in fine-tuning; by the formula of ``components/flops.py`` from the rows' true lengths, and
the solver's and the search's as they count them. Model passes run on a share of the rows
(``LORALOOM_BENCH_SHARE``, 0.05 if not given), and two subsets are fine-tuned; their seconds are reckoned up from there,
in proportion. Estimate and partition run on tables of full size: the rows at hand, repeated. The plan and fine-tuning
take turns; seconds are medians. The plan always estimates as many subsets as the pipeline does by default, also where
fewer are compared with. Estimating is what has a target: the search replaces no fine-tune of a subset.
"""

import os
import statistics
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel

from benchmarks.measure import Row
from benchmarks.setting import DATA, MAX_LENGTH, MODEL, base_model, datasets
from components.config import (
    DatasetConfig,
    GradientsConfig,
    ModelConfig,
    PartitionConfig,
    RunConfig,
    SurrogateConfig,
    TrainingConfig,
    WarmStartConfig,
)
from components.estimator import Estimates, GroupEstimator
from components.examples import Examples, tokenize
from components.flops import PassCost, pass_cost
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.language_model import Base, attach_adapter
from components.object_store import LocalStore
from components.partition.plan import choose_partition
from components.prepared import PreparedDataset
from components.sampling import feature_rows, sample_rows
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity
from components.tables import Features
from components.training import Material, Recipe, fit
from components.training_time import training_times

SHARE = float(os.environ.get("LORALOOM_BENCH_SHARE", "0.05"))
SUBSETS, SUBSET_SHARE, FINE_TUNED, EPOCHS, RATE, REPEATS = 50, 0.3, 2, 3, 2e-3, 5

PASSES = WarmStartConfig().epochs + WarmStartConfig().lookahead_epochs  # over the warm start's rows


@dataclass(frozen=True)
class _Task:
    """One dataset: its rows, and how many the plan looks at."""

    dataset: PreparedDataset
    train: Examples
    validation: Examples
    warm: int
    features: int

    def sample(self, part: Examples, count: int) -> Examples:
        return part.take(sample_rows(part.row, count, seed=0))


def rows() -> list[Row]:
    """FLOPs and seconds of the plan, and of fine-tuning 50 subsets of 0.3 n."""
    base = base_model()
    tasks = [_task(base, dataset) for dataset in datasets()]
    model = attach_adapter(base, _config().lora, seed=0)
    cost = pass_cost(base, model)
    warm = PASSES * sum(_passes(cost, task.sample(task.train, task.warm)) for task in tasks)
    looked_at = [task.sample(part, task.features) for task in tasks for part in (task.train, task.validation)]
    extract = sum(_passes(cost, part) for part in looked_at)
    subset = SUBSET_SHARE * EPOCHS * sum(_passes(cost, task.train) for task in tasks)
    turns = [(_plan(base, tasks), _fine_tuning(base, tasks)) for _ in range(REPEATS)]
    spent = _Spent(*(statistics.median(part) for part in zip(*(astuple(plan.spent) for plan, _ in turns), strict=True)))
    speed = statistics.median(seconds for _, seconds in turns)
    counted = turns[0][0]
    estimating = warm + extract + counted.solver
    plan = estimating + counted.search
    note = (
        f"{len(tasks)} datasets, {sum(len(task.train) for task in tasks)} training rows, {EPOCHS} epochs; warm start "
        f"and look-ahead {warm:.2e}, extraction {extract:.2e}, solver {counted.solver:.2e}, search {counted.search:.2e}"
    )
    timed = f"{spent}; medians of {REPEATS}; model passes on {SHARE:g} of the rows, {FINE_TUNED} subsets fine-tuned"
    found = []
    for count in (SUBSETS, counted.subsets):
        tuned, took, target = count * subset, speed * count * subset, 105 if DATA and count == SUBSETS else None
        found += [
            _row(f"estimating, {count} subsets, FLOPs", estimating, tuned, target, "FLOPs", note),
            _row(f"plan, {count} subsets, FLOPs", plan, tuned, None, "FLOPs", note),
            _row(f"estimating, {count} subsets", spent.estimating, took, None, "s", timed),
            _row(f"plan, {count} subsets", spent.estimating + spent.partition, took, None, "s", timed),
        ]
    return found


def _row(name: str, ours: float, tuned: float, target: float | None, unit: str, note: str) -> Row:
    return Row(name, ours, tuned, tuned / ours, target, "at least", unit, note)


def _config() -> RunConfig:
    return RunConfig(model=ModelConfig(id=MODEL), datasets=[DatasetConfig(name="any", path="any")])


def _task(base: Base, dataset: PreparedDataset) -> _Task:
    train, validation = (tokenize(dataset, split, base.tokenizer, MAX_LENGTH) for split in ("train", "validation"))
    config = _config()
    warm = min(len(train), config.warm_start.samples_per_dataset)
    return _Task(dataset, train, validation, warm, feature_rows(config, len(train)))


def _passes(cost: PassCost, examples: Examples) -> int:
    """FLOPs of forward and backward passes over rows: a training step's and extraction's are the same."""
    length = np.array([len(ids) for ids in examples.ids], dtype=np.int64)
    return cost.training(int(length.sum()), int(np.square(length).sum()))


@dataclass(frozen=True)
class _Spent:
    """Seconds of the plan at full size."""

    warm: float
    extract: float
    estimate: float
    partition: float

    @property
    def estimating(self) -> float:
        return self.warm + self.extract + self.estimate

    def __str__(self) -> str:
        parts = {"warm start and look-ahead": self.warm, "extraction": self.extract, "estimate": self.estimate}
        return ", ".join(f"{name} {value:.0f} s" for name, value in (parts | {"partition": self.partition}).items())


@dataclass(frozen=True)
class _Plan:
    """One run of the plan: what it took, FLOPs of estimating and of searching, and how many subsets were estimated."""

    spent: _Spent
    solver: int
    search: int
    subsets: int


def _plan(base: Base, tasks: list[_Task]) -> _Plan:
    """Run the plan, its model passes on :data:`SHARE` of their rows; those seconds in proportion."""
    marks = [time.perf_counter()]
    material = [_material(task, round(SHARE * task.warm)) for task in tasks]
    model = attach_adapter(base, _config().lora, seed=0)
    _fit(base, model, material, PASSES)
    model.eval()
    marks.append(time.perf_counter())
    parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    projection = Projection(GradientsConfig().dim, 0, "count_sketch", base.device)
    taken = [
        projected_gradients(model, base, task.sample(part, max(10, round(SHARE * task.features))), projection, 4096)
        for task in tasks
        for part in (task.train, task.validation)
    ]
    marks.append(time.perf_counter())
    sizes = [min(task.features, len(part)) for task in tasks for part in (task.train, task.validation)]
    tables = [_repeated(table, size) for table, size in zip(taken, sizes, strict=True)]
    train, validation = tables[::2], tables[1::2]
    begin = time.perf_counter()
    estimator, members, estimates = _estimated(tasks, train, validation, parameters)
    middle, solver = time.perf_counter(), estimator.flops
    _partition(tasks, estimator, members, estimates)
    end = time.perf_counter()
    warm, extract = (float(seconds) / SHARE for seconds in np.diff(marks))
    spent = _Spent(warm, extract, middle - begin, end - middle)
    return _Plan(spent, solver, estimator.flops - solver, len(members))


def _repeated(table: Features, count: int) -> Features:
    """``count`` rows: those of the table over and over."""
    index = np.resize(np.arange(len(table.row)), count)
    return Features(np.arange(count), table.features[index], table.margin[index])


def _estimated(
    tasks: list[_Task], train: list[Features], validation: list[Features], parameters: int
) -> tuple[GroupEstimator, np.ndarray, Estimates]:
    """What can estimate subsets, the subsets that a plan estimates [K, n], and what they are estimated at."""
    names, settings = [task.dataset.name for task in tasks], SurrogateConfig()
    training = TrainingConfig(epochs=EPOCHS, learning_rate=RATE)
    times = training_times(training, [len(task.train) for task in tasks], train, parameters)
    estimator = GroupEstimator(train, validation, settings.lambdas, times, seed=0, names=names, width=settings.width)
    members = choose_subsets(
        len(names), settings.subsets, SUBSET_SHARE, settings.pair_coverage, settings.exhaustive_up_to, seed=0
    )
    return estimator, members, estimator.solve(members)


def _partition(tasks: list[_Task], estimator: GroupEstimator, members: np.ndarray, estimates: Estimates) -> None:
    names, partition = [task.dataset.name for task in tasks], PartitionConfig()
    choose_partition(
        names=names,
        entropy=np.array([task.dataset.entropy() for task in tasks]),
        members=members,
        loss=estimates.loss,
        affinity=affinity(members, estimates.loss[0], names).matrix,
        row_losses=estimator.row_losses,
        second_half=estimator.halves,
        groups=partition.groups,
        max_groups=partition.max_groups,
        bootstrap=partition.bootstrap,
        seed=0,
        previous=None,
    )


def _fine_tuning(base: Base, tasks: list[_Task]) -> float:
    """Seconds a FLOP of fine-tuning, on two subsets of a share of their rows."""
    size, random = max(2, round(SUBSET_SHARE * len(tasks))), np.random.default_rng(0)
    spent = seconds = 0.0
    for _ in range(FINE_TUNED):
        chosen = [tasks[i] for i in random.choice(len(tasks), size, replace=False)]
        material = [_material(task, max(16, round(SHARE * task.warm))) for task in chosen]
        model = attach_adapter(base, _config().lora, seed=0)
        begin = time.perf_counter()
        _fit(base, model, material, epochs=1)
        seconds += time.perf_counter() - begin
        spent += sum(_passes(pass_cost(base, model), part.train) for part in material)
    return seconds / spent


def _material(task: _Task, count: int) -> Material:
    return Material(task.sample(task.train, count), task.sample(task.validation, 1))


def _fit(base: Base, model: PeftModel, material: list[Material], epochs: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(epochs=epochs, learning_rate=RATE, batch_size=16, seed=0)
        fit(model, base, material, recipe, LocalStore(Path(folder)), "benchmark", lambda *_: None)
