"""Training with the real Trainer: what it minimises, what it repeats exactly, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from components.config import ModelConfig
from components.errors import UserError
from components.language_model import Base, attach_adapter, load_base
from components.object_store import LocalStore
from components.schedule import batch_order
from components.training import Fitted, Material, Recipe, fit
from components.validation_loss import validation_loss
from tests.tiny_ensemble import write_base
from tests.tiny_training import LORA, assert_same, toy_examples, weights

RECIPE = Recipe(epochs=2, learning_rate=1e-2, batch_size=8, seed=3, patience=2)
# On labels that say nothing: the first epoch is the best, the third the last.
NOISY = Recipe(epochs=8, learning_rate=2e-2, batch_size=8, seed=3, patience=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def adapted(model: ModelConfig) -> tuple[PeftModel, Base]:
    """A model with a seeded adapter whose A and B are both at work."""
    base = load_base(model)
    adapter = attach_adapter(base, LORA, seed=1)
    random = torch.Generator().manual_seed(1)
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=random) * 0.05)
    return adapter, base


def material(*, noisy: bool = False, offsets: bool = False) -> list[Material]:
    """Two datasets of 24 and 8 training rows; ``noisy``: labels that say nothing, so that validation gets worse."""
    parts = []
    for k, (rows, checked) in enumerate(((24, 16), (8, 12))):
        train, validation = toy_examples(rows, k, noisy=noisy), toy_examples(checked, 10 + k, noisy=noisy)
        part = Material(train, validation)
        if offsets and k == 0:
            rng = np.random.default_rng(7)
            part = Material(train, validation, rng.normal(size=(rows, 2), scale=2).astype(np.float32))
        parts.append(part)
    return parts


def silent(done: int, total: int, note: str) -> None:
    pass


def trained(
    model: ModelConfig,
    store: LocalStore,
    recipe: Recipe = RECIPE,
    parts: list[Material] | None = None,
    progress: Callable[[int, int, str], None] = silent,
) -> tuple[dict[str, torch.Tensor], Fitted]:
    adapter, base = adapted(model)
    fitted = fit(adapter, base, parts or material(), recipe, store, "job", progress)
    return weights(adapter), fitted


def obvious_losses(adapter: PeftModel, part: Material, rows: list[int], *, validation: bool = False) -> torch.Tensor:
    """Cross-entropy over the labels, a row at a time, through the whole model and without padding."""
    examples = part.validation if validation else part.train
    offset = None if validation else part.offset
    losses = []
    for i in rows:
        logits = adapter(input_ids=torch.tensor([examples.ids[i]])).logits[0, -1, examples.label_tokens]
        if offset is not None:
            logits = logits + torch.from_numpy(offset[i])
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(int(examples.label[i]))))
    return torch.stack(losses)


def obvious_fit(
    model: ModelConfig, recipe: Recipe, parts: list[Material]
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same training as a plain loop over the same batches; also the loss of each step."""
    adapter, _ = adapted(model)
    lengths = [[len(ids) for ids in part.train.ids] for part in parts]
    order = batch_order(lengths, recipe.epochs, recipe.batch_size, recipe.size_exponent, recipe.seed)
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    warmup, told = round(recipe.warmup_ratio * len(order)), []
    for step, batch in enumerate(order):
        share = step / warmup if step < warmup else (len(order) - step) / (len(order) - warmup)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * share
        loss = torch.cat([obvious_losses(adapter, parts[d], [i]) for d, i in batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        told.append(loss.item())
    return weights(adapter), told


@pytest.mark.parametrize("offsets", [False, True], ids=["plain", "offset"])
def test_training_is_a_plain_loop_over_the_same_batches(model: ModelConfig, store: LocalStore, offsets: bool) -> None:
    recipe = replace(RECIPE, patience=None, learning_rate=3e-3, warmup_ratio=0.25, weight_decay=0.1)
    parts = material(offsets=offsets)
    ours, fitted = trained(model, store, recipe, parts)
    theirs, losses = obvious_fit(model, recipe, parts)
    assert_same(ours, theirs, atol=2e-5)
    before = weights(adapted(model)[0])
    assert min((ours[name] - before[name]).abs().max().item() for name in ours) > 1e-3  # every matrix has moved
    assert [point["epoch"] for point in fitted.curve] == [1.0, 2.0]
    expected = [np.mean(losses[:4]), np.mean(losses[4:])]
    assert [point["train_loss"] for point in fitted.curve] == pytest.approx(expected, abs=1e-4)


def test_validation_loss_is_the_mean_over_datasets(model: ModelConfig) -> None:
    adapter, base = adapted(model)
    parts = material()
    with torch.no_grad():
        expected = [obvious_losses(adapter, p, list(range(len(p.validation))), validation=True).mean() for p in parts]
    assert validation_loss(adapter, base, [part.validation for part in parts]) == pytest.approx(
        np.mean(expected), abs=1e-5
    )


def test_a_separable_task_is_learnt(model: ModelConfig, store: LocalStore) -> None:
    steps: list[tuple[int, int]] = []
    recipe = replace(RECIPE, epochs=6)
    _, fitted = trained(model, store, recipe, progress=lambda done, total, note: steps.append((done, total)))
    assert [point["epoch"] for point in fitted.curve] == [1, 2, 3, 4, 5, 6]
    losses = [point["train_loss"] for point in fitted.curve]
    assert losses[-1] < 0.15 < 0.5 < losses[0]
    assert fitted.curve[-1]["validation_loss"] < 0.55  # guessing: 0.69
    assert steps == [(step, 24) for step in range(1, 25)]


def test_tokens_are_counted_with_padding(model: ModelConfig, store: LocalStore) -> None:
    parts = material()
    _, fitted = trained(model, store, replace(RECIPE, patience=None), parts)
    lengths = [[len(ids) for ids in part.train.ids] for part in parts]
    longest = [
        (len(batch), max(lengths[d][i] for d, i in batch)) for batch in batch_order(lengths, 2, 8, 0.0, RECIPE.seed)
    ]
    assert fitted.tokens == sum(rows * tokens for rows, tokens in longest)
    assert fitted.squared == sum(rows * tokens**2 for rows, tokens in longest)


def test_the_same_seed_gives_the_same_weights(model: ModelConfig, store: LocalStore) -> None:
    first, _ = trained(model, store)
    torch.rand(5)  # whatever was drawn before does not matter
    again, _ = trained(model, store)
    assert_same(first, again, atol=0)
    other, _ = trained(model, store, replace(RECIPE, seed=4))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_fraction_of_an_epoch_is_trained_to_its_end(model: ModelConfig, store: LocalStore) -> None:
    steps: list[tuple[int, int]] = []
    recipe = replace(RECIPE, epochs=0.5, patience=None)
    _, fitted = trained(model, store, recipe, progress=lambda done, total, note: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert len(fitted.curve) == 1


def test_early_stopping_keeps_the_best_epoch(model: ModelConfig, store: LocalStore) -> None:
    adapter, base = adapted(model)
    parts = material(noisy=True)
    fitted = fit(adapter, base, parts, NOISY, store, "job", silent)
    losses = [point["validation_loss"] for point in fitted.curve]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 8  # two epochs without a better loss, then the end
    assert validation_loss(adapter, base, [part.validation for part in parts]) == pytest.approx(losses[best], abs=1e-6)
    assert not adapter.training


def test_without_patience_nothing_is_evaluated(model: ModelConfig, store: LocalStore) -> None:
    adapter, base = adapted(model)
    parts = material(noisy=True)
    fitted = fit(adapter, base, parts, replace(NOISY, epochs=4, patience=None), store, "job", silent)
    assert [set(point) for point in fitted.curve] == [{"epoch", "train_loss"}] * 4
    assert validation_loss(adapter, base, [part.validation for part in parts]) > 1.0  # the last weights, not the best


def test_recomputing_activations_changes_nothing(model: ModelConfig, store: LocalStore) -> None:
    plain, _ = trained(model, store, RECIPE)
    again, _ = trained(model, store, replace(RECIPE, gradient_checkpointing=True))
    assert_same(again, plain, atol=1e-5)


def test_a_loss_that_is_not_finite_is_the_users_to_mend(model: ModelConfig, store: LocalStore) -> None:
    with pytest.raises(UserError, match=r"(?s)training diverged.*-> lower training.learning_rate"):
        trained(model, store, replace(RECIPE, learning_rate=1e38))


class Killed(BaseException):
    """Stands for a kill where the test goes on in the same process."""


class Mortal(LocalStore):
    """A store whose job dies ``before`` or ``after`` it forgets a checkpoint, once step ``last`` is done."""

    def __init__(self, root: Path, when: str, last: int) -> None:
        super().__init__(root)
        self.when, self.last, self.step = when, last, 0

    def progress(self, done: int, total: int, note: str) -> None:
        self.step = done

    def delete(self, key: str) -> None:
        ended = self.step >= self.last
        if ended and self.when == "before":
            raise Killed
        super().delete(key)
        if ended:
            raise Killed


@pytest.mark.parametrize("kill_at", [5, 9])
def test_a_killed_job_stops_early_where_it_would_have(model: ModelConfig, store: LocalStore, kill_at: int) -> None:
    """The best epoch and the count of worse ones lie before the kill."""
    whole, expected = trained(model, store, NOISY, material(noisy=True))
    assert len(expected.curve) == 3

    def die(done: int, total: int, note: str) -> None:
        if done == kill_at:
            raise Killed

    with pytest.raises(Killed):
        trained(model, store, NOISY, material(noisy=True), die)
    steps: list[int] = []
    again, fitted = trained(model, store, NOISY, material(noisy=True), lambda done, *_: steps.append(done))
    assert steps[0] == kill_at // 4 * 4 + 1
    assert [point["validation_loss"] for point in fitted.curve] == pytest.approx(
        [point["validation_loss"] for point in expected.curve], abs=1e-6
    )
    assert_same(again, whole, atol=1e-6)
    assert (fitted.tokens, fitted.squared) == (expected.tokens, expected.squared)
    assert list(store.keys("")) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_killed_while_it_ends_ends_the_same(model: ModelConfig, tmp_path: Path, when: str) -> None:
    whole, expected = trained(model, LocalStore(tmp_path / "store"), NOISY, material(noisy=True))
    mortal = Mortal(tmp_path / "store", when, last=12)
    with pytest.raises(Killed):
        trained(model, mortal, NOISY, material(noisy=True), mortal.progress)
    store = LocalStore(tmp_path / "store")
    assert list(store.keys("checkpoints/")) != []
    again, fitted = trained(model, store, NOISY, material(noisy=True))
    assert_same(again, whole, atol=1e-6)
    assert fitted.curve == [pytest.approx(point, abs=1e-5) for point in expected.curve]
    assert list(store.keys("")) == []


def test_checkpoints_that_another_run_clears_away_are_begun_anew(model: ModelConfig, tmp_path: Path) -> None:
    whole, expected = trained(model, LocalStore(tmp_path / "store"), NOISY, material(noisy=True))
    mortal = Mortal(tmp_path / "store", "before", last=12)
    with pytest.raises(Killed):
        trained(model, mortal, NOISY, material(noisy=True), mortal.progress)
    store, steps = LocalStore(tmp_path / "store"), list[int]()
    store.delete(next(store.keys("checkpoints/job/checkpoint-")))  # `newest` has come back meanwhile
    again, fitted = trained(model, store, NOISY, material(noisy=True), lambda done, *_: steps.append(done))
    assert steps[0] == 1
    assert_same(again, whole, atol=1e-6)
    assert fitted.curve == [pytest.approx(point, abs=1e-5) for point in expected.curve]


def train_in_this_process(folder: Path, kill_at: int) -> None:
    """Train as the tests do and write weights and curve; a positive ``kill_at``: die at that step."""

    def progress(done: int, total: int, note: str) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    model = ModelConfig(id=str(folder / "base"), quantization="none", dtype="float32", device="cpu", max_length=128)
    ours, fitted = trained(model, LocalStore(folder / "store"), RECIPE, material(), progress)
    torch.save(ours, folder / "weights.pt")
    (folder / "curve.json").write_text(json.dumps(fitted.curve))


def test_a_job_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base")
    whole, expected = trained(model, LocalStore(tmp_path / "other"))
    call = "from pathlib import Path; from tests.test_training import train_in_this_process as go; import sys; "
    command = [sys.executable, "-c", call + "go(Path(sys.argv[1]), int(sys.argv[2]))", str(tmp_path)]
    root = {"PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([*command, "6"], env=os.environ | root, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    store = LocalStore(tmp_path / "store")
    assert store.read("checkpoints/job/newest").startswith(b"checkpoint-4\n")
    assert not (tmp_path / "weights.pt").exists()

    steps: list[int] = []
    again, fitted = trained(model, store, progress=lambda done, *_: steps.append(done))
    assert steps == [5, 6, 7, 8]
    assert_same(again, whole, atol=1e-6)
    assert fitted.curve == [pytest.approx(point, abs=1e-5) for point in expected.curve]
    assert list(store.keys("")) == []
