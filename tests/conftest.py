"""The tiny models as fixtures, adapters on them, rows for them; an S3 server."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from peft import PeftModel

from components.config import LoraConfig, ModelConfig
from components.examples import Examples
from components.language_model import Base, attach_adapter, load_base
from tests.small_models import VOCABULARY, write_gpt2, write_llama

LORA = LoraConfig(rank=4, alpha=8)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def wide_llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For four bits: bitsandbytes quantizes in blocks of 64, and on a CPU rows must be whole blocks."""
    return write_llama(tmp_path_factory.mktemp("wide-llama"), 64)


@pytest.fixture(scope="session")
def wide_gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("wide-gpt2"), 64)


@pytest.fixture(params=["llama", "gpt2"])
def model_config(request: pytest.FixtureRequest) -> ModelConfig:
    """Each of the two architectures in full precision."""
    return plain(request.getfixturevalue(f"{request.param}_folder"))


def plain(folder: Path) -> ModelConfig:
    return ModelConfig(id=str(folder), quantization="none", dtype="float32", device="cpu", max_length=512)


def nf4(folder: Path) -> ModelConfig:
    """Four bits, but computing in float32, so that only quantization tells it from its dequantized twin."""
    return plain(folder).model_copy(update={"quantization": "nf4"})


def adapted(model: ModelConfig, *, perturbed: bool = True, lora: LoraConfig = LORA) -> tuple[Base, PeftModel]:
    """A base with a seeded adapter; ``perturbed`` moves B away from zero, where gradients of A are not zero."""
    base = load_base(model)
    peft = attach_adapter(base, lora, seed=3)
    if perturbed:
        perturb(peft)
    return base, peft.eval()


def perturb(model: PeftModel, seed: int = 5) -> None:
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=random))


def random_examples(lengths: list[int], classes: int = 3, seed: int = 0, *, response: int = 0) -> Examples:
    """Random tokens of the given lengths; with ``response``, completions whose last so many tokens are the answer."""
    random = np.random.default_rng(seed)
    ids = [random.integers(2, VOCABULARY, length).tolist() for length in lengths]
    row = random.integers(1, 2**62, len(lengths))
    if response:
        starts = [length - response - i % 2 for i, length in enumerate(lengths)]
        return Examples(row, ids, np.ones(len(lengths), np.int64), [], starts)
    tokens = random.choice(np.arange(2, VOCABULARY), classes, replace=False).tolist()
    return Examples(row, ids, random.integers(0, classes, len(lengths)), tokens)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server that speaks real HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
