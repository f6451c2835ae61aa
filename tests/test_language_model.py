import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from components.config import LoraConfig, ModelConfig
from components.errors import UserError
from components.examples import collate
from components.language_model import (
    answer_logits,
    attach_adapter,
    example_logits,
    load_adapters,
    load_base,
    margins,
    save_adapter,
)
from tests.conftest import LORA, adapted, perturb, plain, random_examples

ROOT = Path(__file__).parents[1]


def full_logits(model: PeftModel, ids: list[int]) -> torch.Tensor:
    """The model's own forward pass on one unpadded sequence, [T, vocabulary]."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def slow_log_odds(model: PeftModel, ids: list[int], start: int) -> float:
    """Mean over response tokens of log p - log(1 - p), a token at a time, in double precision."""
    odds = []
    for position in range(start, len(ids)):
        p = torch.softmax(full_logits(model, ids[:position])[-1].double(), dim=0)
        right = p[ids[position]]
        odds.append((right.log() - (p.sum() - right).log()).item())
    return float(np.mean(odds))


class TestLogits:
    def test_label_logits_are_the_full_models(self, model_config: ModelConfig) -> None:
        base, model = adapted(model_config)
        examples = random_examples([9, 3, 17, 1, 30, 12], classes=5)
        ours = example_logits(model, base, examples, batch_tokens=60)
        for i, ids in enumerate(examples.ids):
            theirs = full_logits(model, ids)[-1][examples.label_tokens]
            np.testing.assert_allclose(ours[i], theirs.numpy(), rtol=1e-4, atol=1e-4)
        assert ours.std() > 0.3, "logits this flat would hide a wrong position"

    def test_padded_batches_equal_one_at_a_time(self, model_config: ModelConfig) -> None:
        base, model = adapted(model_config)
        for examples in (random_examples([9, 3, 17, 1, 30, 12]), random_examples([9, 6, 17, 5], response=3)):
            together = example_logits(model, base, examples, batch_tokens=10_000)
            alone = example_logits(model, base, examples, batch_tokens=1)
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)

    def test_completion_log_odds_equal_a_slow_loop(self, model_config: ModelConfig) -> None:
        base, model = adapted(model_config)
        examples = random_examples([12, 7, 20], response=4)
        assert examples.response_start is not None
        logits = example_logits(model, base, examples)
        for i, (ids, start) in enumerate(zip(examples.ids, examples.response_start, strict=True)):
            assert logits[i].tolist() == pytest.approx([0.0, slow_log_odds(model, ids, start)], rel=1e-4, abs=1e-4)
        h = margins(torch.from_numpy(logits), torch.from_numpy(examples.label))
        np.testing.assert_allclose(h.numpy(), logits[:, 1], rtol=1e-6)

    def test_batch_of_several_datasets(self, model_config: ModelConfig) -> None:
        """Two labels, five labels and a completion in one batch: each as if it were alone, the rest -inf."""
        base, model = adapted(model_config)
        parts = [random_examples([8], 2), random_examples([15], 5, seed=1), random_examples([11], seed=2, response=3)]
        with torch.no_grad():
            logits = answer_logits(model, collate([(part, 0) for part in parts]))
        assert logits.shape == (3, 5)
        for row, part, width in zip(logits, parts, (2, 5, 2), strict=True):
            np.testing.assert_allclose(row[:width], example_logits(model, base, part)[0], rtol=1e-4, atol=1e-4)
            assert (row[width:] == -math.inf).all()

    def test_bfloat16_is_close(self, llama_folder: Path) -> None:
        exact, half = (load_base(plain(llama_folder).model_copy(update={"dtype": d})) for d in ("float32", "bfloat16"))
        examples = random_examples([9, 14])
        logits = example_logits(exact.model, exact, examples), example_logits(half.model, half, examples)
        assert logits[1].dtype == np.float32
        np.testing.assert_allclose(logits[0], logits[1], atol=0.05 * np.abs(logits[0]).max())


class TestMargins:
    def test_definition(self) -> None:
        logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double() * 4
        label = torch.arange(50) % 7
        p = torch.softmax(logits, 1)[torch.arange(50), label]
        torch.testing.assert_close(margins(logits, label), p.log() - torch.log1p(-p))

    def test_softplus_is_the_cross_entropy(self) -> None:
        """Also where rows have fewer labels than the batch is wide."""
        logits = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)) * 5
        classes = torch.arange(60) % 5 + 2
        logits = logits.masked_fill(torch.arange(6)[None] >= classes[:, None], -math.inf)
        label = torch.arange(60) % classes
        expected = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        torch.testing.assert_close(torch.nn.functional.softplus(-margins(logits, label)), expected)

    def test_gradient_is_finite_with_padded_classes(self) -> None:
        logits = torch.tensor([[1.0, -2.0, -math.inf, -math.inf], [3.0, 0.5, 1.0, 2.0]], requires_grad=True)
        margins(logits, torch.tensor([1, 0])).sum().backward()
        assert logits.grad is not None
        assert logits.grad[0].tolist() == [-1.0, 1.0, 0.0, 0.0]
        others = torch.softmax(torch.tensor([0.5, 1.0, 2.0]), 0)
        torch.testing.assert_close(logits.grad[1], torch.cat([torch.ones(1), -others]))

    def test_sure_answers_do_not_saturate(self) -> None:
        assert margins(torch.tensor([[200.0, 0.0], [0.0, 300.0]]), torch.tensor([0, 0])).tolist() == [200.0, -300.0]


INIT = """
import sys
from pathlib import Path
from components.config import LoraConfig, ModelConfig
from components.language_model import attach_adapter, load_base, save_adapter
for model, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    base = load_base(ModelConfig(id=model, quantization="none", dtype="float32", device="cpu", max_length=512))
    save_adapter(attach_adapter(base, LoraConfig(rank=4, alpha=8), seed=3), Path(folder), base)
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class TestAdapters:
    def test_fresh_adapter_changes_nothing_and_its_seed_everything(self, model_config: ModelConfig) -> None:
        examples = random_examples([9, 14])
        base = load_base(model_config)
        before = example_logits(base.model, base, examples)
        model = attach_adapter(base, LORA, seed=3)
        np.testing.assert_array_equal(example_logits(model, base, examples), before)
        first = [w.clone() for name, w in model.named_parameters() if ".lora_A." in name]
        other = attach_adapter(load_base(model_config), LORA, seed=4)
        second = [w for name, w in other.named_parameters() if ".lora_A." in name]
        assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert all(not w.any() for name, w in model.named_parameters() if ".lora_B." in name)

    def test_only_the_adapter_is_trainable(self, model_config: ModelConfig) -> None:
        _, model = adapted(model_config)
        assert {name for name, w in model.named_parameters() if w.requires_grad} == {
            name for name, _ in model.named_parameters() if ".lora_" in name
        }

    def test_attaching_leaves_the_random_state_alone(self, llama_folder: Path) -> None:
        base = load_base(plain(llama_folder))
        torch.manual_seed(11)
        expected = torch.rand(3)
        torch.manual_seed(11)
        attach_adapter(base, LORA, seed=3)
        assert torch.equal(torch.rand(3), expected)

    def test_seed_gives_the_same_bytes_in_any_process(
        self, llama_folder: Path, gpt2_folder: Path, tmp_path: Path
    ) -> None:
        for model_folder, name in ((llama_folder, "llama"), (gpt2_folder, "gpt2")):
            base, model = adapted(plain(model_folder), perturbed=False)
            save_adapter(model, tmp_path / "here" / name, base)
        there = tmp_path / "there"
        names = [str(llama_folder), str(there / "llama"), str(gpt2_folder), str(there / "gpt2")]
        environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", INIT, *names], env=environment, check=True, capture_output=True)
        for name in ("llama", "gpt2"):
            assert digests(there / name) == digests(tmp_path / "here" / name)

    def test_saved_folder_is_plain_peft_and_names_no_place(self, llama_folder: Path, tmp_path: Path) -> None:
        base, model = adapted(plain(llama_folder))
        save_adapter(model, tmp_path / "a", base)
        assert set(digests(tmp_path / "a")) == {"adapter_config.json", "adapter_model.safetensors"}
        settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        assert settings["target_modules"] == sorted(settings["target_modules"])
        assert (settings["r"], settings["lora_alpha"], settings["inference_mode"]) == (4, 8, True)
        assert str(tmp_path) not in json.dumps(settings)

    def test_saving_again_after_loading_gives_the_same_bytes(self, model_config: ModelConfig, tmp_path: Path) -> None:
        base, model = adapted(model_config)
        save_adapter(model, tmp_path / "a", base)
        again = load_base(model_config)
        save_adapter(load_adapters(again, {"default": tmp_path / "a"}, trainable=True), tmp_path / "b", again)
        assert digests(tmp_path / "a") == digests(tmp_path / "b")

    def test_several_adapters_on_one_base(self, model_config: ModelConfig, tmp_path: Path) -> None:
        examples = random_examples([9, 14, 5])
        expected = {}
        for seed, name in enumerate(("start", "group-0", "group-1")):
            base, model = adapted(model_config, perturbed=False)
            perturb(model, seed)
            expected[name] = example_logits(model, base, examples)
            save_adapter(model, tmp_path / name, base)
        base = load_base(model_config)
        bare = example_logits(base.model, base, examples)
        model = load_adapters(base, {name: tmp_path / name for name in expected})
        assert model.active_adapter == "start"
        assert not model.training
        for name in ("start", "group-1", "group-0", "start"):
            model.set_adapter(name)
            np.testing.assert_allclose(example_logits(model, base, examples), expected[name], rtol=1e-6, atol=1e-6)
            assert np.abs(expected[name] - bare).max() > 0.01
        with model.disable_adapter():
            np.testing.assert_allclose(example_logits(model, base, examples), bare, rtol=1e-6, atol=1e-6)

    def test_loaded_adapter_trains_where_asked(self, llama_folder: Path, tmp_path: Path) -> None:
        base, model = adapted(plain(llama_folder))
        save_adapter(model, tmp_path / "a", base)
        model = load_adapters(load_base(plain(llama_folder)), {"default": tmp_path / "a"}, trainable=True)
        assert {name for name, w in model.named_parameters() if w.requires_grad} == {
            name for name, _ in model.named_parameters() if ".lora_" in name
        }

    def test_unknown_target_is_a_user_error(self, llama_folder: Path) -> None:
        with pytest.raises(UserError, match=r"lora\.targets") as caught:
            attach_adapter(load_base(plain(llama_folder)), LoraConfig(targets=["no_such_layer"]), seed=0)
        assert "all-linear" in caught.value.remedy


def test_a_kernel_that_is_never_called_is_not_reported_missing(caplog: pytest.LogCaptureFixture) -> None:
    bitsandbytes = logging.getLogger("bitsandbytes.backends.cpu.ops")
    bitsandbytes.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no module")
    bitsandbytes.warning("of another kind")
    assert caplog.messages == ["of another kind"]
