"""An ensemble folder of random adapters on a random two-layer model: small, but everything in it is real."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from components import __version__
from components.config import LoraConfig, ModelConfig
from components.language_model import Base, attach_adapter, load_base, save_adapter
from components.prompts import label_tokens
from components.serving.description import SCHEMA, coefficients
from components.serving.merge import Part, merge

TEMPLATES = {"mood": "{text}\nMood:\n", "pair": "{text}\n{text_pair}\nSame?\n"}
WORDS = {"mood": ["bad", "good"], "pair": ["yes", "no", "maybe"]}
LABELS = {"mood": ["negative", "positive"], "pair": ["entails", "contradicts", "neutral"]}
ADAPTERS = ("start", "group-0", "group-0-booster-0", "group-1", "multitask")


def digest(text: str) -> str:
    """A made-up digest that looks like one."""
    return (text.encode().hex() * 64)[:64]


def write_base(folder: Path) -> ModelConfig:
    """A byte-level tokenizer and a Llama of two layers, hidden size 32, seeded."""
    vocabulary = {symbol: i for i, symbol in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return ModelConfig(id=str(folder), quantization="none", dtype="float32", device="cpu", max_length=128)


def write_ensemble(folder: Path, model: ModelConfig) -> dict[str, Any]:
    """Two groups, one boosted, a multi-task adapter, a completion dataset; returns the parsed ``ensemble.json``."""
    base = load_base(model)
    for seed, name in enumerate(ADAPTERS):
        _write_adapter(base, folder / "adapters" / name, seed)
    description = {
        "schema": SCHEMA,
        "loraloom_version": __version__,
        "name": "desk",
        "base": {
            **{key: getattr(model, key) for key in ("id", "revision", "quantization", "dtype", "max_length")},
            "digest": base.digest,
        },
        "datasets": {name: _dataset(name, base) for name in TEMPLATES}
        | {
            "story": {
                "template": "{prompt}",
                "labels": [],
                "words": [],
                "label_token_ids": [],
                "completion": True,
                "digest": digest("story"),
                "metric": "accuracy",
            }
        },
        "start": {"folder": "adapters/start", "digest": digest("start")},
        "members": [
            _group("group-0", ["mood", "story"], [_booster("group-0-booster-0")]),
            _group("group-1", ["pair"], []),
            _group("multitask", ["mood", "pair", "story"], []),
        ],
        "router": None,
        "weights": {"mood": [0.5, 0.2, 0.3], "pair": [0.0, 1.0, 0.0], "story": [1.0, 0.0, 0.0]},
        "temperatures": {"mood": 1.5, "pair": 1.0, "story": 1.0},
        "artifacts": {
            kind: {"key": f"{kind}/1", "digest": digest(kind)} for kind in ("affinity", "partition", "features")
        },
        "git_sha": "c0ffee",
        "seed": 7,
    }
    description["merged"] = {"mood": _merged(folder, description)}
    (folder / "ensemble.json").write_text(json.dumps(description))
    return description


def _merged(folder: Path, description: dict[str, Any]) -> dict[str, Any]:
    """The merged adapter of ``mood``, of rank 8 out of 16, so that something is lost."""
    shares = coefficients(description, "mood")
    parts = [Part(folder / "adapters" / name, share) for name, share in shares.items()]
    lost = merge(parts, 8, folder / "adapters" / "merged-mood")
    return {
        "folder": "adapters/merged-mood",
        "digest": digest("merged-mood"),
        "rank": 8,
        "lost": lost,
        "disagreement": {"labels": 0.25, "kl": 0.1, "rows": 4},
        "default": False,
        "test": None,
    }


def _dataset(name: str, base: Base) -> dict[str, Any]:
    return {
        "template": TEMPLATES[name],
        "labels": LABELS[name],
        "words": WORDS[name],
        "label_token_ids": label_tokens(WORDS[name], TEMPLATES[name], base.tokenizer)[0],
        "completion": False,
        "digest": digest(name),
        "metric": "accuracy",
    }


def _group(name: str, datasets: list[str], boosters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "datasets": datasets,
        "folder": f"adapters/{name}",
        "digest": digest(name),
        "run_id": f"run-{name}",
        "boosters": boosters,
    }


def _booster(name: str) -> dict[str, Any]:
    return {"folder": f"adapters/{name}", "digest": digest(name), "eta": 0.5}


def _write_adapter(base: Base, folder: Path, seed: int) -> None:
    model = attach_adapter(base, LoraConfig(rank=4, alpha=8), seed)
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=random) * 0.3)
    save_adapter(model, folder, base)
    model.unload()
