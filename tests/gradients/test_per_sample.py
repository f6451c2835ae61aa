from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model

from components.config import LoraConfig, ModelConfig
from components.errors import UserError
from components.examples import Examples, collate, length_batches
from components.gradients.per_sample import captured, lora_layers, projected_gradients
from components.gradients.projection import Projection
from components.language_model import Base, answer_logits, load_base, margins
from tests.conftest import LORA, adapted, nf4, perturb, plain, random_examples
from tests.gradients.test_projection import dense_matrix

CPU = torch.device("cpu")
Gradients = dict[str, torch.Tensor]


def slow_margin(model: PeftModel, examples: Examples, i: int) -> torch.Tensor:
    """The margin of one unpadded example from the model's own forward pass over the whole vocabulary."""
    ids = examples.ids[i]
    logits = model(input_ids=torch.tensor([ids])).logits[0].float()
    if examples.response_start is None:
        odds = logits[-1, examples.label_tokens]
        p = torch.softmax(odds, 0)[examples.label[i]]
        return p.log() - torch.log1p(-p)
    positions = range(examples.response_start[i], len(ids))
    probabilities = [torch.softmax(logits[t - 1], 0)[ids[t]] for t in positions]
    return torch.stack([p.log() - torch.log1p(-p) for p in probabilities]).mean()


def slow_gradients(model: PeftModel, examples: Examples) -> tuple[Gradients, torch.Tensor]:
    """One autograd.grad a sample: {parameter: [M, p]} by the names `captured` uses, and margins [M]."""
    adapter = model.active_adapter
    weights = {}
    for name, layer in lora_layers(model).items():
        weights |= {f"{name}.A": layer.lora_A[adapter].weight, f"{name}.B": layer.lora_B[adapter].weight}
    rows, margin = [], []
    for i in range(len(examples)):
        h = slow_margin(model, examples, i)
        rows.append([g.flatten() for g in torch.autograd.grad(h, list(weights.values()))])
        margin.append(h.detach())
    columns = zip(*rows, strict=True)
    return {name: torch.stack(c) for name, c in zip(weights, columns, strict=True)}, torch.stack(margin)


def batched_gradients(model: PeftModel, examples: Examples) -> Gradients:
    """What `captured` hands over in one padded batch."""
    found: Gradients = {}
    batch = collate([(examples, i) for i in range(len(examples))])
    with captured(model, lora_layers(model), len(examples), found.__setitem__):
        margins(answer_logits(model, batch), batch.label).sum().backward()
    return found


def assert_rows_equal(found: torch.Tensor, expected: torch.Tensor, name: str = "", tolerance: float = 1e-5) -> None:
    """Every sample's row within ``tolerance`` of the largest row of the parameter."""
    error = (found - expected).norm(dim=1)
    assert (error <= tolerance * expected.norm(dim=1).max()).all(), f"{name}: {error / expected.norm(dim=1)}"


LENGTHS = [9, 14, 3, 22, 6]


@pytest.mark.parametrize("kind", ["labels", "completion"])
def test_gradients_equal_one_at_a_time(model_config: ModelConfig, kind: str) -> None:
    _, model = adapted(model_config)
    examples = random_examples(LENGTHS) if kind == "labels" else random_examples([9, 14, 12, 22], response=3)
    expected, _ = slow_gradients(model, examples)
    found = batched_gradients(model, examples)
    assert found.keys() == expected.keys()
    assert {name.rpartition(".")[2] for name in found} == {"A", "B"}
    for name, gradient in expected.items():
        assert gradient.norm(dim=1).max() > 1e-4, name
        assert_rows_equal(found[name], gradient, name)


def test_llama_has_tied_embeddings_and_grouped_queries(llama_folder: Path) -> None:
    base, model = adapted(plain(llama_folder))
    assert base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight
    found = batched_gradients(model, random_examples([5]))
    assert found["model.layers.0.self_attn.q_proj.B"].shape == (1, 32 * 4)
    assert found["model.layers.0.self_attn.k_proj.B"].shape == (1, 16 * 4)


def test_raw_initialisation_has_gradients_of_b_only(model_config: ModelConfig) -> None:
    _, model = adapted(model_config, perturbed=False)
    examples = random_examples(LENGTHS)
    expected, _ = slow_gradients(model, examples)
    found = batched_gradients(model, examples)
    for name, gradient in expected.items():
        if name.endswith(".A"):
            assert not gradient.any() and name not in found
        else:
            assert_rows_equal(found[name], gradient, name)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_four_bits_with_float32_compute(architecture: str, request: pytest.FixtureRequest) -> None:
    _, model = adapted(nf4(request.getfixturevalue(f"wide_{architecture}_folder")))
    examples = random_examples(LENGTHS)
    expected, _ = slow_gradients(model, examples)
    found = batched_gradients(model, examples)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_rows_equal(found[name], gradient, name)


@pytest.mark.parametrize("kind", ["count_sketch", "rademacher"])
@pytest.mark.parametrize("raw", [False, True], ids=["trained", "raw"])
def test_features_equal_the_dense_projection(llama_folder: Path, kind: str, raw: bool) -> None:
    base, model = adapted(plain(llama_folder), perturbed=not raw, lora=LoraConfig(rank=2, targets=["q_proj", "k_proj"]))
    examples = random_examples(LENGTHS)
    gradients, margin = slow_gradients(model, examples)
    expected = torch.zeros(len(examples), 16, dtype=torch.float64)
    for name, gradient in gradients.items():
        expected += gradient.double() @ dense_matrix(kind, 5, name, gradient.shape[1], 16).T
    assert len(list(length_batches(examples.ids, 40))) > 1, "several batches, or their order is not tested"
    table = projected_gradients(model, base, examples, Projection(16, 5, kind, CPU), 40)
    assert_rows_equal(torch.from_numpy(table.features), expected.float())
    np.testing.assert_allclose(table.margin, margin, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(table.row, examples.row)


def test_completion_features_do_not_depend_on_the_batch(model_config: ModelConfig) -> None:
    base, model = adapted(model_config)
    examples = random_examples([8, 15, 11], response=3)
    tables = [
        projected_gradients(model, base, examples, Projection(32, 5, "count_sketch", CPU), budget)
        for budget in (1, 10_000)
    ]
    assert_rows_equal(torch.from_numpy(tables[0].features), torch.from_numpy(tables[1].features))
    _, margin = slow_gradients(model, examples)
    np.testing.assert_allclose(tables[1].margin, margin, rtol=1e-4, atol=1e-4)


def test_only_the_active_adapter_is_differentiated(llama_folder: Path) -> None:
    _, model = adapted(plain(llama_folder))
    examples = random_examples([7, 5])
    first = batched_gradients(model, examples)
    model.add_adapter("other", model.peft_config["default"])
    perturb(model, seed=9)
    model.set_adapter("other")
    expected, _ = slow_gradients(model, examples)
    found = batched_gradients(model, examples)
    for name, gradient in expected.items():
        assert_rows_equal(found[name], gradient, name)
    assert any((found[name] - first[name]).norm() > 0.1 * first[name].norm() for name in found)


def requires_grad(model: PeftModel) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def hooks(model: PeftModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_parameters_and_hooks_are_as_they_were(model_config: ModelConfig) -> None:
    base, model = adapted(model_config)
    next(p for name, p in model.named_parameters() if "lora_A" in name).requires_grad_(False)
    before, hooked = requires_grad(model), hooks(model)
    assert len(set(before.values())) == 2
    projected_gradients(model, base, random_examples([5, 8]), Projection(8, 0, "count_sketch", CPU), 64)
    assert requires_grad(model) == before and hooks(model) == hooked
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="on purpose"), captured(model, lora_layers(model), 1, lambda *_: None):
        raise RuntimeError("on purpose")
    assert requires_grad(model) == before and hooks(model) == hooked


def routed(base: Base) -> None:
    """Let the first layer's network see tokens without their sequences, as an expert does."""
    mlp = base.model.model.layers[0].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x.flatten(0, 1)).view_as(x)


def shared(base: Base) -> None:
    """Let the second layer use the first one's network, too."""
    base.model.model.layers[1].mlp = base.model.model.layers[0].mlp


@pytest.mark.parametrize("twist", [routed, shared])
def test_layers_that_do_not_see_whole_sequences_once_are_refused(llama_folder: Path, twist: object) -> None:
    base, model = adapted(plain(llama_folder))
    before = requires_grad(model)
    twist(base)  # type: ignore[operator]
    with pytest.raises(UserError, match="whole sequences once each") as caught:
        projected_gradients(model, base, random_examples([6, 4]), Projection(8, 0, "count_sketch", CPU), 64)
    assert "layers.0.mlp" in caught.value.what and "lora.targets" in caught.value.remedy
    assert requires_grad(model).items() <= before.items()
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        ({"target_modules": ["embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["q_proj"], "use_dora": True}, "q_proj"),
    ],
)
def test_other_adapters_than_plain_products_are_refused(
    llama_folder: Path, settings: dict[str, object], layer: str
) -> None:
    base = load_base(plain(llama_folder))
    model = get_peft_model(base.model, PeftLoraConfig(r=LORA.rank, task_type="CAUSAL_LM", **settings))
    with pytest.raises(UserError, match="not supported") as caught:
        lora_layers(model)
    assert layer in caught.value.what and "all-linear" in caught.value.remedy


def test_rows_that_are_not_finite_are_named(llama_folder: Path) -> None:
    base, model = adapted(plain(llama_folder))
    examples = random_examples([6, 9, 4])
    damaged = next(token for token in examples.ids[1] if token not in {*examples.ids[0], *examples.ids[2], 0})
    assert damaged not in examples.label_tokens
    base.model.get_input_embeddings().weight.data[damaged] = torch.nan
    with pytest.raises(UserError, match="not finite for 1 rows") as caught:
        projected_gradients(model, base, examples, Projection(8, 0, "count_sketch", CPU), 64)
    assert str(examples.row[1]) in caught.value.what
    assert str(examples.row[0]) not in caught.value.what and str(examples.row[2]) not in caught.value.what
    assert "float32" in caught.value.remedy
