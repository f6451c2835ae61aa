"""Load the base model, attach the adapter, and read label logits and margins off it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from components.adapter_files import SETTINGS
from components.base_model import model_digest, model_folder
from components.config import LoraConfig, ModelConfig
from components.errors import UserError
from components.examples import Batch, Examples, collate, full_batches
from components.finite import check_logits
from components.label_tokens import load_tokenizer
from components.whole_model import check_finite, check_whole

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# How far our label logits may be from the model's own forward pass, relative to their spread.
HEAD_TOLERANCE = 0.02


@dataclass(frozen=True)
class Base:
    """A loaded base model.

    Attributes:
        linear_parameters: weights of the backbone's linear layers, what a token is multiplied with (for FLOPs).
        digest: sha256 over the model's files.
    """

    model: PreTrainedModel
    tokenizer: Any
    device: torch.device
    digest: str
    config: ModelConfig
    linear_parameters: int


def load_base(model: ModelConfig) -> Base:
    """The frozen base model in evaluation mode.

    Raises:
        UserError: it cannot be found or loaded, or its label logits cannot be computed exactly.
    """
    folder = model_folder(model)
    device = _device(model.device)
    tokenizer = load_tokenizer(model, folder)
    loaded = _loaded(model, folder, device, len(tokenizer))
    loaded.eval().requires_grad_(False)
    for module in loaded.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # gradients are taken without; training has the adapter's dropout only
        elif isinstance(module, Linear4bit):
            # bitsandbytes repacks 4-bit weights at the first inference on such CPUs; the packed product has no
            # gradient and no way back, so training after it would silently lose the base's share of the chain rule.
            module.support_avx512bf16_for_cpu = False
            _check_blocks(module, device)
    weights = [_logical_size(module) for module in loaded.base_model.modules()]
    base = Base(loaded, tokenizer, device, model_digest(model), model, sum(weights))
    _check_head(base)
    return base


def _loaded(model: ModelConfig, folder: Path, device: torch.device, tokens: int) -> Any:
    """The model in ``folder``, all of it read from there; ``tokens``: how many its tokenizer has."""
    quantization = None
    if model.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[model.dtype],
        )
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[model.dtype],
            quantization_config=quantization,
            device_map={"": device},
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by us, with the names
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"model.id: {folder} does not fit into the memory of {device}",
            remedy="use model.quantization: nf4, a smaller model, or a machine with more memory",
        ) from error
    except (ValueError, OSError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"model.id: {folder} cannot be loaded as a causal language model: {error}",
            remedy="check that it is one and that its files are whole; models with code of their own need "
            "model.trust_remote_code: true",
        ) from error
    loaded, found = read
    check_whole(loaded, found, tokens, folder)
    return loaded


def attach_adapter(base: Base, lora: LoraConfig, seed: int) -> PeftModel:
    """A fresh LoRA adapter; the same seed gives the same weights on every machine."""
    settings = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.model.modules()),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(base.model, settings)
        except ValueError as error:
            raise UserError(
                f"lora.targets: {error}", remedy="name linear modules of the model, or all-linear"
            ) from error


def load_adapters(base: Base, folders: dict[str, Path], *, trainable: bool = False) -> PeftModel:
    """Several named adapters on one base; pick one with ``model.set_adapter(name)``. The first is active."""
    names = list(folders)
    model = PeftModel.from_pretrained(base.model, folders[names[0]], adapter_name=names[0], is_trainable=trainable)
    for name in names[1:]:
        model.load_adapter(folders[name], adapter_name=name, is_trainable=trainable)
    model.set_adapter(names[0])
    return model.eval()


def save_adapter(model: PeftModel, folder: Path, base: Base) -> None:
    """Write the adapter called ``default`` as a plain PEFT folder, the same bytes for the same weights.

    Raises:
        UserError: a weight is not finite.
    """
    if bad := [name for name, w in model.named_parameters() if "lora_" in name and not torch.isfinite(w).all()]:
        raise UserError(
            f"the adapter's weights are not finite: {bad[0]} and {len(bad) - 1} more",
            remedy="lower the learning rate it was trained with, or use model.dtype: float32",
        )
    model.save_pretrained(str(folder), selected_adapters=["default"])
    # PEFT's model card names library versions and dates; its config lists a set in no order and the loaded folder.
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / SETTINGS
    settings = json.loads(path.read_text())
    if isinstance(settings["target_modules"], list):
        settings["target_modules"] = sorted(settings["target_modules"])
    # A local base is named without its path: the same adapter made elsewhere is to have the same digest.
    name = Path(base.config.id).name if Path(base.config.id).is_dir() else base.config.id
    settings |= {"base_model_name_or_path": name, "revision": base.config.revision, "inference_mode": True}
    path.write_text(json.dumps(settings, indent=1, sort_keys=True))


def answer_logits(model: PreTrainedModel | PeftModel, batch: Batch) -> torch.Tensor:
    """Logits of each row's labels at its answer position, float32 [B, C].

    Only the positions that carry an answer meet the output matrix, never positions x vocabulary. Rows with fewer than
    C labels are filled with -inf. A completion row has the two logits (0, h), h being the mean over its response
    tokens of the log-odds against the full vocabulary: its margin with label 1 is h.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    backbone: torch.nn.Module = inner.base_model
    hidden = backbone(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    output: torch.Tensor = inner.get_output_embeddings().weight
    rows = torch.arange(len(batch.length), device=hidden.device)
    answer = hidden[rows, batch.length - 1]
    vectors = output[batch.label_tokens.clamp_min(0)].to(answer.dtype)
    logits = torch.einsum("bh,bch->bc", answer.float(), vectors.float())
    logits = logits.masked_fill(batch.label_tokens < 0, -math.inf)
    completion = batch.response_start >= 0
    if completion.any():
        filled = torch.full_like(logits, -math.inf)
        filled[:, 0] = 0.0
        filled[:, 1] = _response_log_odds(hidden, batch, output)
        logits = torch.where(completion[:, None], filled, logits)
    return logits


def margins(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Log-odds of the right answer, ``h = log p_y - log(1 - p_y)``, [B] from logits [B, C] and labels [B].

    Computed as ``z_y - logsumexp_{c != y} z_c``; ``log(1 + exp(-h))`` is exactly the cross-entropy.
    """
    right = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -math.inf)
    return right - torch.logsumexp(others, dim=1)


@torch.inference_mode()
def example_logits(
    model: PreTrainedModel | PeftModel,
    base: Base,
    examples: Examples,
    batch_tokens: int = 8192,
    passed: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """Label logits of N examples of one dataset, float32 [N, C], in their order; ``passed`` hears of each batch."""
    classes = max(2, len(examples.label_tokens))
    out = np.zeros((len(examples), classes), dtype=np.float32)
    for index in full_batches(examples.ids, batch_tokens):
        batch = collate([(examples, int(i)) for i in index]).to(base.device)
        out[index] = answer_logits(model, batch).float().cpu().numpy()
        check_logits(examples.row[index], out[index])
        passed(len(index))
    return out


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is cuda, but torch sees no GPU", remedy="use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # With its number: each of several processes has a GPU of its own, and "cuda" alone may mean the first one.
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def _logical_size(module: torch.nn.Module) -> int:
    """Weights of a linear layer, also where they are packed two to a byte."""
    if isinstance(module, torch.nn.Linear):  # bitsandbytes' Linear4bit is one, with packed weights
        return module.in_features * module.out_features
    return module.weight.numel() if isinstance(module, Conv1D) else 0


def _response_log_odds(hidden: torch.Tensor, batch: Batch, output: torch.Tensor) -> torch.Tensor:
    """Mean log-odds of the response tokens against the full vocabulary, [B]; 0 for classification rows."""
    position = torch.arange(hidden.shape[1], device=hidden.device)[None]
    start, length = batch.response_start[:, None], batch.length[:, None]
    predicts = (start >= 0) & (position >= start - 1) & (position < length - 1)
    row, column = predicts.nonzero(as_tuple=True)
    target = batch.input_ids[row, column + 1]
    odds = margins(linear(hidden[row, column].float(), output.float()), target)
    total = torch.zeros(len(batch.length), device=hidden.device).index_add(0, row, odds)
    return total / predicts.sum(1).clamp_min(1)


def _check_blocks(module: Linear4bit, device: torch.device) -> None:
    """Refuse layers that bitsandbytes dequantizes wrongly on a CPU: rows must be whole blocks there."""
    weight: Any = module.weight
    blocksize = weight.quant_state.blocksize
    if device.type == "cpu" and module.in_features % blocksize:
        raise UserError(
            f"nf4 on a CPU needs layers whose inputs are multiples of {blocksize}; one has {module.in_features}",
            remedy="use model.quantization: none, or a GPU",
        )


def _check_head(base: Base) -> None:
    """Refuse a model whose logits are more than a product with its output embeddings (soft-capping, biases)."""
    ids = torch.arange(1, 9, device=base.device)[None] % len(base.tokenizer)
    with torch.inference_mode():
        theirs = base.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        largest = theirs.abs().topk(16).indices  # what capping bends most
        examples = Examples(np.zeros(1), [ids[0].tolist()], np.zeros(1), largest.tolist())
        ours = answer_logits(base.model, collate([(examples, 0)]).to(base.device))[0]
        theirs = theirs[largest]
    check_finite(base.model, theirs, Path(base.config.id))
    if (ours - theirs).abs().max() > HEAD_TOLERANCE * max(1.0, theirs.abs().max().item()):
        raise UserError(
            f"{type(base.model).__name__} changes its logits after the output layer, which label logits cannot follow",
            remedy="use a model whose logits are hidden states times output embeddings (Llama, Qwen, GPT-2...)",
        )
