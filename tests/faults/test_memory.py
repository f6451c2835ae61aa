"""Memory that runs out while training: the batch is done in parts, it is said once, and the result is the same.

Extraction does likewise; that is in tests/gradients.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from components import training
from components.errors import UserError
from components.object_store import LocalStore
from components.short_memory import Parts, is_out_of_memory
from components.training import Material, Recipe, fit
from tests.conftest import adapted, plain
from tests.tiny_training import assert_same, toy_examples, weights

RECIPE = Recipe(epochs=2, learning_rate=1e-2, batch_size=8, seed=0)


def fitted(folder: Path, store: Path, said: list[str]) -> dict[str, torch.Tensor]:
    base, model = adapted(plain(folder))
    material = [Material(toy_examples(32, 0), toy_examples(8, 1))]
    fit(model, base, material, RECIPE, LocalStore(store), "job", lambda *_: None, say=said.append)
    return weights(model)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_training_goes_on_in_halves(
    error: Exception, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that holds three rows at once."""
    whole = fitted(llama_folder, tmp_path / "whole", [])
    answer = training.answer_logits

    def short(model: Any, batch: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and len(batch.length) > 3:
            raise error
        return answer(model, batch)

    monkeypatch.setattr(training, "answer_logits", short)
    said: list[str] = []
    assert_same(fitted(llama_folder, tmp_path / "parts", said), whole, 1e-4)
    assert said == [
        "out of memory at 8 rows: batches are done in 2 parts from here on",
        "out of memory at 8 rows: batches are done in 4 parts from here on",
    ]


def test_what_a_failed_pass_left_is_forgotten() -> None:
    """The gradient of the first half was there when the second half did not fit."""
    weight = torch.zeros(2, requires_grad=True)
    rows = {"x": torch.arange(8.0).reshape(4, 2)}
    calls = []

    def work(part: dict[str, torch.Tensor]) -> torch.Tensor:
        calls.append(len(part["x"]))
        if len(calls) == 3:  # the second half, at first
            raise torch.OutOfMemoryError
        if len(part["x"]) > 2:
            raise torch.OutOfMemoryError
        loss = (part["x"] @ weight).sum()
        loss.backward()
        return loss.detach()

    said: list[str] = []
    Parts(said.append).sum(rows, work, lambda: weight.__setattr__("grad", None))
    assert calls == [4, 2, 2, 1, 1, 1, 1]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, rows["x"].sum(0))


def test_a_row_that_does_not_fit_is_told() -> None:
    def never(part: dict[str, torch.Tensor]) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(UserError, match="memory does not hold the training of one row") as caught:
        Parts(lambda _: None).sum({"x": torch.zeros(4)}, never, lambda: None)
    assert "gradient_checkpointing" in caught.value.remedy


def test_other_errors_are_not_taken_for_short_memory() -> None:
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        Parts(lambda _: None).sum({"x": torch.zeros(4)}, _mismatch, lambda: None)


def _mismatch(part: dict[str, torch.Tensor]) -> torch.Tensor:
    raise RuntimeError("size mismatch")


def test_a_real_limit_is_recognised(tmp_path: Path) -> None:
    """torch under RLIMIT_AS, in a process of its own."""
    import subprocess
    import sys

    script = """
import resource, torch
from components.short_memory import is_out_of_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    torch.ones(2**30)
except (MemoryError, RuntimeError) as error:
    print(is_out_of_memory(error))
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("RLIMIT_AS is Linux'")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
