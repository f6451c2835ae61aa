"""Settings in which per-sample gradients have to be exact, or be refused: paddings, precisions, experts."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model

from components.config import LoraConfig, ModelConfig
from components.errors import UserError
from components.examples import Examples, collate
from components.gradients.per_sample import captured, lora_layers
from components.gradients.self_check import TOLERANCE, compare_gradients
from components.language_model import load_base, margins
from tests.conftest import adapted, nf4, perturb, plain, random_examples
from tests.gradients.test_per_sample import LENGTHS, assert_rows_equal, batched_gradients, slow_gradients
from tests.small_models import write_mixtral


def left_padded_gradients(model: PeftModel, examples: Examples) -> dict[str, torch.Tensor]:
    """Gradients of a batch padded on the left, with the mask and the positions that this takes."""
    longest = max(len(ids) for ids in examples.ids)
    ids = torch.tensor([[7] * (longest - len(row)) + row for row in examples.ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in examples.ids])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    found: dict[str, torch.Tensor] = {}
    with captured(model, lora_layers(model), len(examples), found.__setitem__):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        margins(logits[:, examples.label_tokens], torch.from_numpy(examples.label)).sum().backward()
    return found


def test_padding_on_the_left_gives_the_same(model_config: ModelConfig) -> None:
    """Our batches are padded on the right; the hooks do not depend on it."""
    _, model = adapted(model_config)
    examples = random_examples(LENGTHS)
    expected, _ = slow_gradients(model, examples)
    for name, gradient in left_padded_gradients(model, examples).items():
        assert_rows_equal(gradient, expected[name], name)


@pytest.mark.parametrize("make", [plain, nf4], ids=["bf16", "nf4"])
def test_bfloat16_agrees_up_to_its_rounding(wide_llama_folder: Path, make: object) -> None:
    config = make(wide_llama_folder).model_copy(update={"dtype": "bfloat16"})  # type: ignore[operator]
    base, model = adapted(config)
    examples = random_examples(LENGTHS)
    found = compare_gradients(model, base, [(examples, i) for i in range(len(examples))])
    assert 1e-6 < found.largest < TOLERANCE["bfloat16"] and found.ok


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return plain(write_mixtral(tmp_path_factory.mktemp("mixtral")))


def test_attention_beside_experts_is_exact(mixtral: ModelConfig) -> None:
    """A token's route depends on its own sequence only, so a batch changes nothing."""
    _, model = adapted(mixtral, lora=LoraConfig(rank=2, targets=["q_proj", "v_proj"]))
    examples = random_examples(LENGTHS)
    expected, _ = slow_gradients(model, examples)
    for name, gradient in batched_gradients(model, examples).items():
        assert_rows_equal(gradient, expected[name], name)


def test_experts_are_refused(mixtral: ModelConfig) -> None:
    base = load_base(mixtral)
    settings = PeftLoraConfig(r=2, task_type="CAUSAL_LM", target_parameters=["mlp.experts.gate_up_proj"])
    model = get_peft_model(base.model, settings)
    perturb(model)
    examples = random_examples(LENGTHS)
    with (
        pytest.raises(UserError, match=r"mlp\.experts took no part") as caught,
        captured(model, lora_layers(model), len(examples), lambda *_: None),
    ):
        model(input_ids=collate([(examples, i) for i in range(len(examples))]).input_ids)
    assert "lora.targets" in caught.value.remedy


class TestSelfCheck:
    def test_agreement_is_rounding(self, model_config: ModelConfig) -> None:
        base, model = adapted(model_config)
        labels, stories = random_examples(LENGTHS), random_examples([9, 14], response=3)
        found = compare_gradients(model, base, [*((labels, i) for i in range(5)), (stories, 0), (stories, 1)])
        assert found.ok and 0 < found.largest < 1e-4
        assert (found.rows, found.parameters) == (7, 2 * len(lora_layers(model)))
        assert found.where.rpartition(".")[0] in lora_layers(model)

    def test_a_layer_that_mixes_rows_is_found(self, llama_folder: Path) -> None:
        base, model = adapted(plain(llama_folder))
        norm = base.model.model.layers[1].post_attention_layernorm
        norm.register_forward_hook(lambda _, inputs, out: out + 0.1 * out.mean(0, keepdim=True))
        examples = random_examples([9, 9, 9])
        found = compare_gradients(model, base, [(examples, i) for i in range(3)])
        assert not found.ok and found.largest > 0.01

    def test_not_a_number_is_no_agreement(self, llama_folder: Path) -> None:
        base, model = adapted(plain(llama_folder))
        examples = random_examples([6, 9])
        base.model.get_input_embeddings().weight.data[examples.ids[1][0]] = torch.nan
        assert not compare_gradients(model, base, [(examples, i) for i in range(2)]).ok
