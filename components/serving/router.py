"""Which dataset a text without one belongs to: logistic regression on the base model's own features.

A text is put to the bare base model without any template, and the mean of its last hidden states is its feature. The
router is trained on a sample of every dataset's training rows and judged on validation rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from safetensors.numpy import load_file, save_file

from components.examples import length_batches
from components.language_model import Base

FILE = "router.safetensors"
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Router:
    """Scores of n datasets, linear in a text's features.

    Attributes:
        names: of the datasets.
        weight: float32 [n, H].
        bias: float32 [n].
    """

    names: list[str]
    weight: np.ndarray
    bias: np.ndarray

    def route(self, features: np.ndarray, allowed: Sequence[str]) -> list[str]:
        """The likeliest of the ``allowed`` datasets for each row of ``features`` [N, H]."""
        columns = [self.names.index(name) for name in allowed]
        scores = features @ self.weight[columns].T + self.bias[columns]
        return [allowed[best] for best in scores.argmax(axis=1)]


def fit_router(features: Mapping[str, np.ndarray], seed: int) -> Router:
    """A router from each dataset's feature rows [N_i, H]; datasets weigh equally whatever their size."""
    from sklearn.linear_model import LogisticRegression

    names = list(features)
    rows = np.concatenate([features[name] for name in names])
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    target = np.repeat(np.arange(len(names)), [len(features[name]) for name in names])
    model = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    model.fit((rows - mean) / scale, target)
    weight, bias = model.coef_, model.intercept_
    if len(names) == 2:  # scikit-learn keeps one row of weights for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    return Router(names, weight.astype(np.float32), (bias - weight @ mean).astype(np.float32))


@torch.inference_mode()
def text_features(base: Base, texts: Sequence[str], max_length: int) -> np.ndarray:
    """Mean last hidden state of the bare base model over each text's tokens, float32 [N, H]."""
    ids = [row or [base.tokenizer.eos_token_id or 0] for row in _token_ids(base, texts, max_length)]
    out = np.zeros((len(ids), base.model.config.hidden_size), np.float32)
    with _bare(base):
        for index in length_batches(ids, BATCH_TOKENS):
            length = torch.tensor([len(ids[i]) for i in index], device=base.device)
            padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in index], batch_first=True)
            hidden = base.model.base_model(input_ids=padded.to(base.device), use_cache=False).last_hidden_state.float()
            real = torch.arange(hidden.shape[1], device=base.device)[None] < length[:, None]
            out[index] = ((hidden * real[..., None]).sum(1) / length[:, None]).cpu().numpy()
    return out


def joined(fields: Mapping[str, Sequence[str]]) -> list[str]:
    """What the router reads of N rows: their fields in the order of the fields' names, a line each."""
    columns = [fields[name] for name in sorted(fields)]
    return ["\n".join(row) for row in zip(*columns, strict=True)]


def write_router(router: Router, folder: Path) -> None:
    """Write ``router.safetensors``; the names go beside it, into ``ensemble.json``."""
    # safetensors writes memory as it lies, and scikit-learn lays coefficients column by column.
    save_file({"weight": np.ascontiguousarray(router.weight), "bias": router.bias}, folder / FILE)


def read_router(folder: Path, names: Sequence[str]) -> Router:
    """What :func:`write_router` wrote."""
    arrays = load_file(folder / FILE)
    return Router(list(names), arrays["weight"], arrays["bias"])


@contextmanager
def _bare(base: Base) -> Iterator[None]:
    """While open, adapters that PEFT has put into the base are silent."""
    layers = [module for module in base.model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _token_ids(base: Base, texts: Sequence[str], max_length: int) -> list[list[int]]:
    if not texts:
        return []
    return [list(row) for row in base.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]]
