"""A second, differently shaped model for the same studies: a small GPT-2, trained briefly as a language model.

The base model of the common options lends its tokenizer. The GPT-2 (Conv1D layers, biases, learned positions, no gate)
learns from the training texts of all sixteen datasets, and sees none of their test texts.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from benchmarks.truth.setting import REAL, note

WIDTH, LAYERS, HEADS, LENGTH = 192, 4, 6, 128
BATCH, RATE = 16, 1e-3


def make(data: Path, tokenizer_of: Path, folder: Path, steps: int) -> None:
    """Train a GPT-2 of about three million weights.

    Args:
        data: folder with one folder a dataset.
        tokenizer_of: folder of the model whose tokenizer it takes.
        folder: to write it to, whole or not at all; there is none yet.
        steps: batches of next tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    tokens = _tokens(data, tokenizer)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_positions=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
    rng = np.random.default_rng(0)
    for step in range(steps):
        starts = rng.integers(0, len(tokens) - LENGTH, BATCH)
        batch = torch.from_numpy(np.stack([tokens[start : start + LENGTH] for start in starts]))
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 100 == 0:
            note(f"language model: step {step} of {steps}, loss {loss.item():.2f}")
    part = folder.with_name(folder.name + ".part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)


def _tokens(data: Path, tokenizer: Any) -> np.ndarray:
    """The training texts of all datasets, shuffled, one after the other, int64 [tokens]."""
    texts = []
    for entry in yaml.safe_load(REAL.read_text())["datasets"]:
        with (data / entry["name"] / "train.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        texts += [" ".join(str(row[key]) for key in ("text", "text_pair", "label") if key in row) for row in rows]
    order = np.random.default_rng(0).permutation(len(texts))
    encoded = tokenizer([texts[i] for i in order], add_special_tokens=True)["input_ids"]
    return np.concatenate([np.array(ids, np.int64) for ids in encoded])
