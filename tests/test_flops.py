"""The formula against torch's own count, with sequences long enough that attention matters."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode

from components.examples import collate
from components.flops import PassCost, pass_cost
from components.gradients.per_sample import captured, lora_layers
from components.language_model import Base, answer_logits, margins
from tests.conftest import adapted, nf4, plain, random_examples

ROWS, LENGTH = 3, 160
TOKENS, SQUARED = ROWS * LENGTH, ROWS * LENGTH**2
BATCH = collate([(random_examples([LENGTH] * ROWS), i) for i in range(ROWS)])


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> tuple[Base, PeftModel]:
    base, model = adapted(plain(request.getfixturevalue(f"{request.param}_folder")))
    base.model.set_attn_implementation("eager")  # the counter does not know the fused kernel of CPUs
    return base, model


def loss(model: PeftModel) -> torch.Tensor:
    return torch.nn.functional.softplus(-margins(answer_logits(model, BATCH), BATCH.label)).mean()


def test_attention_matters(model: tuple[Base, PeftModel]) -> None:
    """Else the comparisons below would say nothing about its part."""
    cost = pass_cost(*model)
    assert 4 * cost.attention * SQUARED > 0.3 * cost.forward(TOKENS, SQUARED)


def test_forward_pass(model: tuple[Base, PeftModel]) -> None:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        answer_logits(model[1], BATCH)
    assert pass_cost(*model).forward(TOKENS, SQUARED) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_per_sample_gradients(model: tuple[Base, PeftModel]) -> None:
    base, peft = model
    received: list[str] = []
    capture = captured(peft, lora_layers(peft), ROWS, lambda name, _: received.append(name))
    with FlopCounterMode(display=False) as counter, capture:
        margins(answer_logits(peft, BATCH), BATCH.label).sum().backward()
    assert {name[-1] for name in received} == {"A", "B"}
    assert pass_cost(base, peft).gradients(TOKENS, SQUARED) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_training_step(model: tuple[Base, PeftModel]) -> None:
    base, peft = model
    peft.train()
    with FlopCounterMode(display=False) as counter:
        loss(peft).backward()
    assert pass_cost(base, peft).training(TOKENS, SQUARED) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_only_the_active_adapter_counts(llama_folder: Path) -> None:
    base, model = adapted(plain(llama_folder))
    before = pass_cost(base, model)
    model.add_adapter("other", model.peft_config["default"])
    assert pass_cost(base, model) == before, "one adapter is active, however many there are"
    assert before.adapter == sum(
        w.numel() for name, w in model.named_parameters() if "lora_" in name and "default" in name
    )


def test_four_bits_cost_what_the_weights_they_stand_for_cost(wide_llama_folder: Path) -> None:
    assert pass_cost(*adapted(nf4(wide_llama_folder))) == pass_cost(*adapted(plain(wide_llama_folder)))


def test_formula_by_hand() -> None:
    cost = PassCost(base=1000, adapter=10, attention=7)
    assert cost.forward(5, 25) == 2 * 1010 * 5 + 4 * 7 * 25
    assert cost.gradients(5, 25) == 2 * cost.forward(5, 25) + 2 * 10 * 5 + 4 * 7 * 25
    assert cost.training(5, 25) == cost.gradients(5, 25)
