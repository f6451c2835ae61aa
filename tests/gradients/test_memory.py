"""The memory plan, and what happens when memory is short."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.config import ModelConfig
from components.errors import UserError
from components.gradients import memory, per_sample
from components.gradients.memory import Budget, free_bytes, kept_bytes, plan
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from tests.conftest import adapted, plain, random_examples

CPU = torch.device("cpu")
LENGTHS = [40, 38, 37, 36, 36, 35, 12]


def sketch() -> Projection:
    return Projection(16, 0, "count_sketch", CPU)


def test_one_row_tells_what_a_batch_keeps(model_config: ModelConfig) -> None:
    base, model = adapted(model_config)
    examples = random_examples(LENGTHS)
    found = plan(model, base, examples, 16, 4096)
    batch = kept_bytes(model, base, examples, list(range(6)))
    assert 0.9 * batch < found.token * 6 * 40 < 1.1 * batch
    # At least the inputs of the layers' two products, in float32.
    assert found.token > 4 * 2 * (3 * 32 + 2 * 64)
    adapter = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    assert (found.projection, found.features, found.tokens) == (8 * adapter, 4 * 16 * len(LENGTHS), 4096)
    parameters = 4 * sum(p.numel() for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    assert parameters <= found.weights <= parameters + buffers


def test_batches_are_made_to_fit_and_it_is_said_once(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, model = adapted(plain(llama_folder))
    examples = random_examples(LENGTHS)
    token = plan(model, base, examples, 16, 1).token
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000 * token)
    said: list[str] = []
    budget = Budget(4096, said.append)
    assert [budget.tokens(model, base, examples, 16) for _ in range(2)] == [512, 512]
    assert len(said) == 2
    assert said[0].startswith("memory: weights ") and f"a batch 512 tokens x {token / 1024:.0f} KiB" in said[0]
    assert said[1] == "memory is short: batches of 512 tokens rather than 4096"


def test_a_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = free_bytes(CPU)
    assert whole > 2**20
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_bytes(CPU) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 2**20


class Short:
    """A machine on which a batch of more than ``rows`` rows runs out of memory in its backward pass."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows, self.error = rows, error

    def accumulate(self, name: str, gradient: torch.Tensor, sums: torch.Tensor) -> None:
        if len(gradient) > self.rows:
            raise self.error
        Projection.accumulate(self.sketch, name, gradient, sums)

    def __call__(self, monkeypatch: pytest.MonkeyPatch) -> Projection:
        self.sketch, limited = sketch(), sketch()
        monkeypatch.setattr(limited, "accumulate", self.accumulate)
        return limited


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_batch_halves_and_the_log_says_so(
    llama_folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model = adapted(plain(llama_folder))
    examples = random_examples(LENGTHS)
    expected = projected_gradients(model, base, examples, sketch(), 4096)
    said: list[str] = []
    found = projected_gradients(model, base, examples, Short(2, error)(monkeypatch), 4096, said.append)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.margin, expected.margin, rtol=1e-4, atol=1e-5)
    assert said[0] == "out of memory at 7 rows of 40 tokens: 140 a batch"
    assert all(line.startswith("out of memory at ") for line in said) and len(said) == 2


def test_a_row_that_does_not_fit_is_an_error(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, model = adapted(plain(llama_folder))
    with pytest.raises(UserError, match="one row of 40 tokens") as caught:
        projected_gradients(
            model, base, random_examples(LENGTHS), Short(0, MemoryError())(monkeypatch), 4096, say=lambda _: None
        )
    assert "max_length" in caught.value.remedy


def test_other_errors_are_not_taken_for_short_memory(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, model = adapted(plain(llama_folder))
    broken = Short(0, RuntimeError("shapes do not match"))(monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        projected_gradients(model, base, random_examples(LENGTHS), broken, 4096)


def test_a_real_allocation_that_fails_is_recognised() -> None:
    assert per_sample._unless_out_of_memory(lambda: torch.empty(2**60, dtype=torch.uint8)) is None
