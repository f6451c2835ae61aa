"""Numbers that go wrong are caught by the step that made them, with their rows; odd but sound ones are put up with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.errors import UserError
from components.examples import Examples
from components.language_model import Base, example_logits, save_adapter
from components.object_store import LocalStore
from components.partition.plan import choose_partition
from components.partition.rounding import round_relaxation
from components.partition.sdp import normalise, relax
from components.solver import PathSolver
from components.tables import Features, Logits
from components.training import Material, Recipe, fit
from tests.conftest import LORA, adapted, plain
from tests.tiny_training import toy_examples

RECIPE = Recipe(epochs=1, learning_rate=1e-3, batch_size=4, seed=0)


@pytest.fixture
def poisoned(llama_folder: Path) -> tuple[Base, object, Examples, int]:
    """A model whose embedding of one token is NaN, and examples of which one row holds that token."""
    base, model = adapted(plain(llama_folder))
    examples = toy_examples(12, seed=0)
    token, guilty = 300, 5
    examples.ids[guilty][1] = token
    base.model.get_input_embeddings().weight.data[token] = torch.nan
    return base, model, examples, int(examples.row[guilty])


def test_a_loss_that_is_not_finite_names_the_rows_of_its_batch(poisoned: tuple, tmp_path: Path) -> None:
    base, model, examples, guilty = poisoned
    with pytest.raises(UserError, match="training diverged: the loss is not finite") as caught:
        fit(model, base, [Material(examples, toy_examples(4, 1))], RECIPE, LocalStore(tmp_path), "job", lambda *_: None)
    assert caught.value.problems == (f"1 of the batch's 4 rows: {guilty}",)


def test_a_validation_loss_that_is_not_finite_names_its_rows(poisoned: tuple, tmp_path: Path) -> None:
    base, model, examples, guilty = poisoned
    recipe = Recipe(epochs=1, learning_rate=1e-3, batch_size=4, seed=0, patience=1)
    with pytest.raises(UserError, match="the loss is not finite") as caught:
        fit(model, base, [Material(toy_examples(8, 1), examples)], recipe, LocalStore(tmp_path), "job", lambda *_: None)
    assert caught.value.problems == (f"1 of the batch's 12 rows: {guilty}",)


def test_logits_that_are_not_finite_name_their_rows(poisoned: tuple) -> None:
    base, model, examples, guilty = poisoned
    with pytest.raises(UserError, match=f"logits are not finite for 1 rows: {guilty}\n") as caught:
        example_logits(model, base, examples)
    assert caught.value.remedy == "use model.dtype: float32, or look for damaged weights"


def test_an_adapter_that_exploded_in_its_last_step_is_not_kept(llama_folder: Path, tmp_path: Path) -> None:
    base, model = adapted(plain(llama_folder), lora=LORA)
    next(w for name, w in model.named_parameters() if "lora_B" in name).data[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"the adapter's weights are not finite: .*lora_B"):
        save_adapter(model, tmp_path, base)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_table_with_a_number_that_is_not_finite_is_not_made(value: float) -> None:
    numbers = np.ones((3, 2), np.float32)
    numbers[1, 1] = value
    row, margin, label = np.array([7, 8, 9]), np.zeros(3, np.float32), np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="1 of 3 rows have features that are not finite: row 8"):
        Features(row, numbers, margin)
    with pytest.raises(ValueError, match="1 of 3 rows have logits that are not finite: row 8"):
        Logits(row, numbers, label)


def test_features_that_say_nothing_are_refused_by_name() -> None:
    flat = Features(np.arange(8), np.zeros((8, 4), np.float32), np.zeros(8, np.float32))
    with pytest.raises(UserError, match="the surrogate cannot be fitted") as caught:
        PathSolver([flat, flat], names=["film", "food"])
    assert caught.value.problems == tuple(
        f"{name}: every feature is zero, so no training can change its answers" for name in ("film", "food")
    )


@pytest.mark.parametrize("rows", [1, 40])
def test_constant_features_and_singular_systems_are_solved(rows: int) -> None:
    """Every row the same, so that every system is of rank one; the optimum is known in one dimension."""
    same = Features(np.arange(rows), np.tile(np.float32([3.0, 4.0, 0.0]), (rows, 1)), np.zeros(rows, np.float32))
    lam = 0.5
    (weights,) = PathSolver([same, same]).solve(np.array([[True, True]]), [lam]).weights[0]
    assert np.isfinite(weights).all()
    norm = np.linalg.norm(weights)
    np.testing.assert_allclose(weights, norm * np.array([0.6, 0.8, 0.0]), atol=1e-5)
    assert lam * norm == pytest.approx(5 / (1 + np.exp(5 * norm)), rel=1e-3)  # where the derivative is zero


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (2, 2), (5, 2), (5, 5)])
def test_an_affinity_without_differences_still_gives_groups(n: int, m: int) -> None:
    affinity = normalise(np.full((n, n), 0.7))
    assert not affinity.any()
    relaxed = relax(affinity, groups=m)
    groups = round_relaxation(affinity, relaxed.matrix, m, seed=0)
    assert sorted(i for group in groups for i in group) == list(range(n))
    assert len(groups) == m


@pytest.mark.parametrize(("n", "groups"), [(1, "auto"), (1, 1), (2, "auto"), (2, 2), (4, 4)])
def test_one_dataset_two_and_a_group_for_each(n: int, groups: object) -> None:
    """Nothing to choose, or nearly: the partition is there all the same, and its gain is a number."""
    members = (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    half = [np.arange(12) % 2 == 1 for _ in range(n)]
    partition = choose_partition(
        names=[f"d{i}" for i in range(n)],
        entropy=np.ones(n),
        members=members,
        loss=np.where(members, 0.5, np.nan)[None].repeat(3, 0),
        affinity=np.zeros((n, n)),
        row_losses=lambda asked: [{int(i): np.full((3, 12), 0.5) for i in np.flatnonzero(row)} for row in asked],
        second_half=half,
        groups=groups,
        bootstrap=10,
    )
    assert sorted(name for group in partition.groups for name in group) == [f"d{i}" for i in range(n)]
    assert len(partition.groups) == (groups if groups != "auto" else 1)
    assert partition.gain.mean == 0
