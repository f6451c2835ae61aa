"""What benchmarks run on: a base model and datasets, those of the demo unless the environment names others.

``LORALOOM_BENCH_MODEL``: a folder in transformers layout. ``LORALOOM_BENCH_DATA``: a folder that holds the datasets of
``benchmarks/real/config.yaml``, a folder each.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from peft import PeftModel

import pipelines
from components.config import DatasetConfig, LoraConfig, ModelConfig, StorageConfig
from components.data.prepare import prepare
from components.examples import Examples, tokenize
from components.language_model import Base, attach_adapter, load_base
from components.prepared import PreparedDataset, SplitName
from pipelines.demo.generate import generate

DEMO = Path(pipelines.__file__).parent / "demo"
REAL = Path(__file__).parent / "real" / "config.yaml"
MODEL = os.environ.get("LORALOOM_BENCH_MODEL", "") or str(DEMO / "base_model")
DATA = os.environ.get("LORALOOM_BENCH_DATA", "")
MAX_LENGTH = 256  # what the textbook way pads to


def base_model() -> Base:
    """The base model in float32."""
    return load_base(ModelConfig(id=MODEL, quantization="none", dtype="float32", max_length=MAX_LENGTH))


def adapted(base: Base, rank: int = LoraConfig().rank) -> PeftModel:
    """An adapter on all linear layers, as after a warm start: B is not zero."""
    model = attach_adapter(base, LoraConfig(rank=rank, alpha=2 * rank), seed=0).eval()
    random = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=random))
    return model


def datasets() -> list[PreparedDataset]:
    """The prepared datasets."""
    with tempfile.TemporaryDirectory() as folder:
        if DATA:
            entries = yaml.safe_load(REAL.read_text())["datasets"]
            root = Path(DATA).resolve()
        else:
            entries = yaml.safe_load((DEMO / "config.yaml").read_text())["datasets"]
            root = Path(folder)
            generate(root)
        found = [DatasetConfig.model_validate(entry | {"path": str(root / entry["name"])}) for entry in entries]
        return [prepare(entry, StorageConfig(), root) for entry in found]


def tokenized(base: Base, split: SplitName = "train") -> dict[str, Examples]:
    """Every dataset's rows of one split."""
    return {dataset.name: tokenize(dataset, split, base.tokenizer, MAX_LENGTH) for dataset in datasets()}


def mixed(parts: dict[str, Examples], count: int, seed: int = 0) -> Examples:
    """``count`` rows of all datasets, so of all lengths; their label tokens are the first dataset's."""
    random = np.random.default_rng(seed)
    pool = [ids for part in parts.values() for ids in part.ids]
    ids = [pool[i] for i in random.choice(len(pool), count, replace=False)]
    tokens = next(iter(parts.values())).label_tokens
    return Examples(np.arange(count), ids, random.integers(0, len(tokens), count), tokens)
