"""Whether a base model is whole: a place for every token, every weight from its files, numbers that are finite.

transformers makes up the weights that a checkpoint lacks, in a warning's distance of silence; a model that is half
random trains well enough to be taken for a bad one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    import torch

SHOWN = 3  # names in a message


def vocabulary_problem(tokens: int, embeddings: int) -> str:
    """What is wrong with a tokenizer of so many tokens for a model that embeds so many, '' where nothing is.

    More embeddings than tokens are common: models are padded to a round number.
    """
    if tokens <= embeddings:
        return ""
    return f"the tokenizer has {tokens} tokens, but the model embeds only {embeddings}: they belong to different models"


def check_whole(model: Any, loading: Mapping[str, Any], tokens: int, folder: Path) -> None:
    """Refuse a model just loaded that is not what its files are meant to hold.

    Args:
        loading: transformers' ``output_loading_info``.
        tokens: of its tokenizer.

    Raises:
        UserError: weights are missing or of another shape, or the tokenizer is another model's.
    """
    problems = []
    if missing := sorted(loading["missing_keys"]):
        problems.append(f"lacks {_some(missing)}, and loraloom will not go on with weights that are made up")
    if other := sorted(loading["mismatched_keys"]):
        shapes = [f"{name} of {list(found)} instead of {list(asked)}" for name, found, asked in other]
        problems.append(f"has weights of another shape than its config.json says: {_some(shapes)}")
    if what := vocabulary_problem(tokens, model.get_input_embeddings().weight.shape[0]):
        problems.append(what)
    if problems:
        raise UserError(
            f"model.id: {folder} holds no whole model",
            problems=tuple(problems),
            remedy="copy config.json, weights and tokenizer of the same revision into it",
        )


def check_finite(model: "torch.nn.Module", logits: "torch.Tensor", folder: Path) -> None:
    """Refuse a model whose logits on a few ordinary tokens are not finite, and name the weights that are to blame."""
    if logits.isfinite().all():
        return
    floating = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    guilty = [name for name, weight in floating.items() if not weight.isfinite().all()]
    raise UserError(
        f"model.id: {folder} answers with numbers that are not finite",
        problems=(f"not finite in the files themselves: {_some(guilty)}",) if guilty else (),
        remedy="copy the weights again; they are damaged" if guilty else "use model.dtype: float32",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
