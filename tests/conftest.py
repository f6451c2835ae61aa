"""Tiny models with everything the large ones have: grouped-query attention, tied embeddings, Conv1D layers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from components.config import LoraConfig, ModelConfig
from components.examples import Examples
from components.language_model import Base, attach_adapter, load_base

VOCABULARY = 400
LORA = LoraConfig(rank=4, alpha=8)
CORPUS = """The weather in the mountains was good, and the people of the village were happy to walk again.
A positive review, a negative review, a neutral review: the film was good, the book was bad, the music was terrible.
Yes, no, maybe. Is this the same question? The answer is true, the answer is false. What is the capital of the land?
Card arrival, card delivery, card payment, card problem. Transfer failed, transfer pending, transfer too slow.
Sentiment: positive. Sentiment: negative. Mood: good. Topic: world, sports, business, science and technology."""


def write_tokenizer(folder: Path, *, begin: bool = True, end: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few sentences; opens (and closes) a text as Llama's (and T5's) does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS.splitlines(), trainer)
    frame = ("<s> " if begin else "") + "$A" + (" </s>" if end else "")
    core.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_llama(folder: Path, hidden: int = 32) -> Path:
    """Two layers, four heads on two key-value heads, tied embeddings."""
    write_tokenizer(folder)
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    return folder


def write_gpt2(folder: Path, hidden: int = 32) -> Path:
    """Two layers of Conv1D, biases, learned positions; dropout as GPT-2 has it."""
    write_tokenizer(folder, begin=False)
    torch.manual_seed(1)
    settings = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=hidden,
        n_layer=2,
        n_head=4,
        n_positions=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    GPT2LMHeadModel(settings).save_pretrained(folder)
    return folder


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
