"""What can be known to be wrong before a run: the model's folder, the data, the label words, and, asked for, gradients.

Weights are loaded for the gradients only.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base_model import STAGED, model_digest
from components.config import ModelConfig, RunConfig
from components.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel

    from components.gradients.self_check import Agreement
    from components.prepared import PreparedDataset

GRADIENT_ROWS = 16  # as many as fit into one batch of any model that can be trained
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes:
        datasets: those that are fine.
        problems: one line each; any of them would stop a run.
        notes: what a run would do that one might not expect.
    """

    datasets: tuple["PreparedDataset", ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check(config: RunConfig) -> Findings:
    """Check what a config points to: every dataset to its last row, and a local model's files and label words.

    Of a model on the hub only the id is looked at; MLflow and the run's store are not asked.
    """
    from components.data.prepare import prepare

    problems, notes = list(model_problems(config.model)), _model_notes(config.model)
    datasets = []
    for entry in config.datasets:
        try:
            datasets.append(prepare(entry, config.storage, Path.cwd()))  # read_config made every path absolute
        except UserError as error:
            problems += [f"{entry.name}: {line}" for line in error.problems or (error.what,)]
    if not problems and Path(config.model.id).is_dir():
        wrong, renamed = _tokenizer_findings(config.model, datasets)
        problems, notes = problems + wrong, notes + renamed
    return Findings(tuple(datasets), tuple(problems), tuple(notes))


def check_gradients(config: RunConfig, datasets: Sequence["PreparedDataset"]) -> "Agreement":
    """Gradients in a batch against gradients one at a time: the config's model and LoRA, a few rows of its data.

    Raises:
        UserError: the model cannot be loaded, or has layers whose per-sample gradients cannot be taken exactly.
    """
    from components.examples import tokenize
    from components.gradients.self_check import compare_gradients
    from components.language_model import attach_adapter, load_base
    from components.sampling import sample_rows

    base = load_base(config.model)
    model = attach_adapter(base, config.lora, config.seed).eval()
    _leave_zero(model, config.seed)
    shown = datasets[:GRADIENT_ROWS]
    rows = []
    for dataset in shown:
        examples = tokenize(dataset, "train", base.tokenizer, config.model.max_length)
        chosen = sample_rows(examples.row, max(1, GRADIENT_ROWS // len(shown)), config.seed)
        rows += [(examples, int(i)) for i in chosen]
    return compare_gradients(model, base, rows)


def _leave_zero(model: "PeftModel", seed: int) -> None:
    """Give LoRA's B small random weights: where it is zero, A has no gradient to compare."""
    import torch

    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=random))


def model_problems(model: ModelConfig) -> list[str]:
    """What is wrong with the base model as far as its folder or its name tells."""
    folder = Path(model.id)
    if folder.is_dir():
        return [f"model.id: {folder} {problem}" for problem in _folder_problems(folder, model)]
    if model.id.startswith(STAGED):
        return _staged_problems(model)
    if folder.is_absolute() or model.id.startswith(".") or not HUB_ID.fullmatch(model.id):
        return [f"model.id: there is no folder {model.id}, and it is no hub id such as Qwen/Qwen2.5-0.5B either"]
    return []


def _folder_problems(folder: Path, model: ModelConfig) -> list[str]:
    problems = []
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights:
        problems.append("has no *.safetensors file; pickled weights are not loaded, convert them")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        problems.append("has no tokenizer; copy tokenizer.json and tokenizer_config.json beside the weights")
    if not (folder / "config.json").is_file():
        return [*problems, "has no config.json; give a folder in transformers layout"]
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shards = _shards(folder)
        if not isinstance(settings, dict):
            raise ValueError("a JSON object is expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [*problems, f"has a config.json or a weight index that cannot be read: {error}"]
    problems += [f"lacks {shard}, which its weight index names" for shard in sorted(shards - weights)]
    kinds = settings.get("architectures") or []
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        problems.append(f"holds a {kinds[0]}, not a causal language model")
    longest = settings.get("max_position_embeddings")
    if isinstance(longest, int) and model.max_length > longest:
        problems.append(f"takes {longest} tokens at most, but model.max_length is {model.max_length}")
    return problems


def _staged_problems(model: ModelConfig) -> list[str]:
    """A staged model was checked when it was staged; whether it is there costs one small read."""
    try:
        model_digest(model)
    except UserError as error:
        return [f"{error.what} ({error.remedy})"]
    return []


def _shards(folder: Path) -> set[str]:
    """The weight files that the index names; none where there is no index."""
    index = folder / "model.safetensors.index.json"
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()


def _model_notes(model: ModelConfig) -> list[str]:
    if Path(model.id).is_dir() or not HUB_ID.fullmatch(model.id) or model.revision:
        return []
    return [f"model.revision is not set: {model.id} may change between runs; pin a commit"]


def _tokenizer_findings(model: ModelConfig, datasets: Sequence["PreparedDataset"]) -> tuple[list[str], list[str]]:
    """(problems, notes) of the tokenizer: whether it is the model's, and whether each label gets a token of its own."""
    from components.label_tokens import load_tokenizer

    try:
        tokenizer = load_tokenizer(model, Path(model.id))
    except UserError as error:
        return [error.what], []
    problems, notes = _vocabulary_problems(model, len(tokenizer)), list[str]()
    for dataset in datasets:
        wrong, renamed = _label_words(tokenizer, dataset)
        problems, notes = problems + wrong, notes + renamed
    return problems, notes


def _vocabulary_problems(model: ModelConfig, tokens: int) -> list[str]:
    """What is wrong with a tokenizer of so many tokens, where config.json says how many the model embeds."""
    from components.whole_model import vocabulary_problem

    embedded = json.loads((Path(model.id) / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    what = vocabulary_problem(tokens, embedded) if isinstance(embedded, int) else ""
    return [f"model.id: {model.id}: {what}"] if what else []


def _label_words(tokenizer: Any, dataset: "PreparedDataset") -> tuple[list[str], list[str]]:
    """(problems, notes) of giving each label of ``dataset`` a token of its own."""
    if dataset.completion:
        return [], []
    from components.prompts import label_tokens

    try:
        _, renamed = label_tokens(dataset.words, dataset.template, tokenizer)
    except UserError as error:
        return [f"{dataset.name}: {error.what} ({error.remedy})"], []
    return [], [f"{dataset.name}: {note}" for note in renamed]
