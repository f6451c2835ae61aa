"""Memory that runs out: batches are done in parts, it is said, and the result is the same.

Under a real limit for extraction and training; where it runs out at a chosen moment, for training here, for extraction
in tests/gradients.
"""

import json
import subprocess
import sys
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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="RLIMIT_AS as used here is Linux'")
@pytest.mark.parametrize("what", ["extraction", "training"])
def test_under_a_real_limit_the_batch_is_halved(what: str, llama_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.under_a_limit", what, str(llama_folder), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, difference = json.loads(done.stdout.splitlines()[-1])
    assert said and all(message.startswith("out of memory at ") for message in said)
    assert difference < 1e-4
