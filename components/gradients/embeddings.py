"""What the bare base model makes of a dataset's texts: the mean of its last hidden states."""

from typing import Any

import numpy as np
import torch
from peft import PeftModel

from components.examples import Examples, collate, full_batches
from components.language_model import Base

BATCH_TOKENS = 8192


@torch.inference_mode()
def mean_embedding(model: PeftModel, base: Base, examples: Examples) -> np.ndarray:
    """Mean over rows of the last hidden state at the answer's position, float32 [hidden]; adapters are left out."""
    total = torch.zeros(())
    with model.disable_adapter():
        inner: Any = model.get_base_model()
        for index in full_batches(examples.ids, BATCH_TOKENS):
            batch = collate([(examples, int(i)) for i in index]).to(base.device)
            hidden = inner.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            rows = torch.arange(len(index), device=hidden.device)
            total = total + hidden[rows, batch.length - 1].float().sum(0).cpu()
    return np.asarray(total / len(examples), np.float32)
