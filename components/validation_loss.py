"""The loss that early stopping and the best epoch go by, the same in every process of a training job."""

from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel

from components import parallel
from components.examples import Examples, collate, length_batches
from components.finite import check_losses
from components.language_model import Base, answer_logits, margins

BATCH_TOKENS = 8192  # padding included


def validation_loss(
    model: PeftModel, base: Base, validation: Sequence[Examples], learning_rate_setting: str = "training.learning_rate"
) -> float:
    """Mean over datasets of the mean cross-entropy of their validation rows, nats.

    Args:
        validation: each dataset's rows.
        learning_rate_setting: what to lower where the loss is not finite.

    Raises:
        UserError: it is not.
    """
    losses = []
    for examples in validation:
        logits = torch.from_numpy(_shared_logits(model, base, examples))
        h = margins(logits, torch.tensor(examples.label))
        found = torch.nn.functional.softplus(-h.double())
        check_losses(found, torch.tensor(examples.row), learning_rate_setting)
        losses.append(found.mean().item())
    return float(np.mean(losses))


@torch.no_grad()
def _shared_logits(model: PeftModel, base: Base, examples: Examples) -> np.ndarray:
    """Label logits of N examples, float32 [N, C]: each process computes every size-th batch, and all get all.

    All make as many passes, the last ones in vain if need be: a sharded base takes every process for each.
    """
    out = np.zeros((len(examples), max(2, len(examples.label_tokens))), dtype=np.float32)
    batches = list(length_batches(examples.ids, BATCH_TOKENS))
    for first in range(0, len(batches), parallel.size()):
        turn = first + parallel.rank()
        index = batches[min(turn, len(batches) - 1)]
        logits = answer_logits(model, collate([(examples, int(i)) for i in index]).to(base.device))
        if turn < len(batches):
            out[index] = logits.float().cpu().numpy()
    return parallel.added_up(out, base.device)
