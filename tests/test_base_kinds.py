"""4-bit bases on a CPU, and base models that are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers.pytorch_utils import Conv1D

from components.config import ModelConfig
from components.errors import UserError
from components.examples import Batch, collate
from components.language_model import (
    Base,
    answer_logits,
    attach_adapter,
    example_logits,
    load_base,
    margins,
)
from tests.conftest import LORA, adapted, nf4, plain, random_examples
from tests.small_models import write_gemma2

ROOT = Path(__file__).parents[1]


def dequantized_twin(quantized: Base, model: ModelConfig) -> Base:
    """A plain model whose weights are what the 4-bit ones stand for."""
    twin = load_base(model)
    # PEFT has put its own layers in front of the packed ones.
    packed = {name.removesuffix(".base_layer"): module for name, module in quantized.model.named_modules()}
    for name, module in twin.model.named_modules():
        other = packed[name]
        if isinstance(other, Linear4bit):
            weight = dequantize_4bit(other.weight.data, other.weight.quant_state).float()
            module.weight.data.copy_(weight.T if isinstance(module, Conv1D) else weight)
    return twin


def training_gradients(model: PeftModel, batch: Batch) -> dict[str, torch.Tensor]:
    """LoRA gradients of the training loss; in training mode, as a trainer has it, with GPT-2's dropout seeded."""
    model.train()
    torch.manual_seed(0)
    model.zero_grad()
    torch.nn.functional.softplus(-margins(answer_logits(model, batch), batch.label)).mean().backward()
    model.eval()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


class TestFourBits:
    @pytest.fixture(params=[False, True], ids=["before inference", "after inference"])
    def after_inference(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.mark.parametrize("architecture", ["llama", "gpt2"])
    def test_gradients_equal_the_dequantized_twins(
        self, architecture: str, after_inference: bool, request: pytest.FixtureRequest
    ) -> None:
        folder = request.getfixturevalue(f"wide_{architecture}_folder")
        examples = random_examples([9, 14, 5, 20])
        batch = collate([(examples, i) for i in range(4)])
        base, model = adapted(nf4(folder))
        layers = [module for module in base.model.modules() if isinstance(module, Linear4bit)]
        assert len(layers) == {"llama": 14, "gpt2": 8}[architecture]
        twin = dequantized_twin(base, plain(folder))
        reference = attach_adapter(twin, LORA, seed=3)
        for name, weight in reference.named_parameters():
            if ".lora_" in name:
                weight.data.copy_(model.get_parameter(name).data)
        if after_inference:
            ours, theirs = example_logits(model, base, examples), example_logits(reference, twin, examples)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        found, expected = training_gradients(model, batch), training_gradients(reference, batch)
        assert found.keys() == expected.keys() and len(found) == 2 * len(layers)
        for name, gradient in expected.items():
            assert gradient.norm() > 1e-3, name
            assert (found[name] - gradient).norm() < 1e-4 * gradient.norm(), name

    def test_inference_never_repacks_the_weights(self, wide_llama_folder: Path) -> None:
        """bitsandbytes would, on CPUs with AVX512-BF16; the packed product has no gradient."""
        base, model = adapted(nf4(wide_llama_folder))
        example_logits(model, base, random_examples([9, 14]))
        layers = [module for module in base.model.modules() if isinstance(module, Linear4bit)]
        assert not any(module.support_avx512bf16_for_cpu for module in layers)
        assert not any(getattr(module.weight.quant_state, "packing_format_for_cpu", False) for module in layers)

    def test_double_quantized_nf4(self, wide_llama_folder: Path) -> None:
        base, exact = load_base(nf4(wide_llama_folder)), load_base(plain(wide_llama_folder))
        for name, module in base.model.named_modules():
            if isinstance(module, Linear4bit):
                state = module.weight.quant_state
                assert state.quant_type == "nf4" and state.nested
                weight = exact.model.get_submodule(name).weight
                error = (dequantize_4bit(module.weight.data, state) - weight).norm() / weight.norm()
                assert 0.05 < error < 0.12, "what four bits lose of normal weights"

    def test_rows_of_broken_blocks_are_refused_on_a_cpu(self, llama_folder: Path) -> None:
        """bitsandbytes takes the wrong block's scale there, and says nothing."""
        with pytest.raises(UserError, match="multiples of 64; one has 32") as caught:
            load_base(nf4(llama_folder))
        assert "model.quantization: none" in caught.value.remedy

    def test_linear_parameters_count_weights_not_bytes(self, wide_llama_folder: Path, wide_gpt2_folder: Path) -> None:
        attention, mlp = 64 * 64 * 2 + 64 * 32 * 2, 3 * 64 * 128
        assert load_base(plain(wide_llama_folder)).linear_parameters == 2 * (attention + mlp)
        assert load_base(nf4(wide_llama_folder)).linear_parameters == 2 * (attention + mlp)
        assert load_base(plain(wide_gpt2_folder)).linear_parameters == 2 * 12 * 64 * 64
        assert load_base(nf4(wide_gpt2_folder)).linear_parameters == 2 * 12 * 64 * 64


def foreign_model(llama_folder: Path, folder: Path) -> Path:
    """A model with code of its own, which leaves a mark when it runs."""
    shutil.copytree(llama_folder, folder)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "foreign", "architectures": ["ForeignForCausalLM"]}
    settings["auto_map"] = {"AutoConfig": "foreign.ForeignConfig", "AutoModelForCausalLM": "foreign.ForeignForCausalLM"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "foreign.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(folder / 'ran')!r}).touch()\n"
        "class ForeignConfig(LlamaConfig):\n    model_type = 'foreign'\n"
        "class ForeignForCausalLM(LlamaForCausalLM):\n    config_class = ForeignConfig\n"
    )
    return folder


class TestRefusals:
    def test_code_of_a_model_runs_only_when_asked_for(
        self, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
        model = plain(foreign_model(llama_folder, tmp_path / "model"))
        assert model.trust_remote_code is False
        with pytest.raises(UserError, match="cannot be loaded") as caught:
            load_base(model)
        assert "model.trust_remote_code: true" in caught.value.remedy
        assert not (tmp_path / "model" / "ran").exists()
        trusted = load_base(model.model_copy(update={"trust_remote_code": True}))
        assert (tmp_path / "model" / "ran").exists()
        own = load_base(plain(llama_folder))
        examples = random_examples([9])
        np.testing.assert_array_equal(
            example_logits(trusted.model, trusted, examples), example_logits(own.model, own, examples)
        )

    def test_missing_model_is_a_user_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="neither a local folder nor a hub model"):
            load_base(ModelConfig(id="nobody/such-model-as-this", device="cpu"))

    def test_missing_tokenizer_is_a_user_error(self, llama_folder: Path, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(llama_folder / name, tmp_path)
        with pytest.raises(UserError, match="cannot be loaded") as caught:
            load_base(plain(tmp_path))
        assert "tokenizer" in caught.value.remedy

    def test_soft_capped_logits_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="changes its logits after the output layer") as caught:
            load_base(plain(write_gemma2(tmp_path)))
        assert "Llama" in caught.value.remedy

    def test_missing_gpu_is_a_user_error(self, llama_folder: Path) -> None:
        if torch.cuda.is_available():
            assert load_base(plain(llama_folder).model_copy(update={"device": "auto"})).device.type == "cuda"
        else:
            with pytest.raises(UserError, match="no GPU"):
                load_base(plain(llama_folder).model_copy(update={"device": "cuda"}))
            assert load_base(plain(llama_folder).model_copy(update={"device": "auto"})).device.type == "cpu"
