"""Tiny models with everything the large ones have: grouped-query attention, tied embeddings, Conv1D layers, experts."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 400
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
    settings = _settings(hidden) | {"max_position_embeddings": 512, "tie_word_embeddings": True}
    return _write(folder, LlamaForCausalLM, LlamaConfig(**settings))


def write_gpt2(folder: Path, hidden: int = 32) -> Path:
    """Two layers of Conv1D, biases, learned positions; dropout as GPT-2 has it."""
    write_tokenizer(folder, begin=False)
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
    return _write(folder, GPT2LMHeadModel, settings, seed=1)


def write_mixtral(folder: Path) -> Path:
    """Two layers of four experts, two a token."""
    write_tokenizer(folder)
    settings = _settings() | {"num_local_experts": 4, "num_experts_per_tok": 2}
    return _write(folder, MixtralForCausalLM, MixtralConfig(**settings))


def write_gemma2(folder: Path) -> Path:
    """Logits capped at Gemma 2's own 30, which bends only large ones: so the weights are large."""
    write_tokenizer(folder)
    settings = Gemma2Config(**_settings() | {"head_dim": 8, "initializer_range": 0.5})
    assert settings.final_logit_softcapping == 30.0
    return _write(folder, Gemma2ForCausalLM, settings)


def _settings(hidden: int = 32) -> dict[str, Any]:
    """What the models with grouped-query attention share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def _write(folder: Path, kind: type[PreTrainedModel], settings: Any, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    kind(settings).save_pretrained(folder)
    return folder
