"""An ensemble as plain folders: what vLLM, LoRAX or a notebook load without loraloom.

``datasets/<name>/`` holds one PEFT folder a dataset: its merged adapter, or the one adapter's that alone counts.
``ensemble/`` holds the ensemble as it is registered, for whoever wants the exact sum.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from components.adapter_files import PEFT_FILES, SETTINGS
from components.errors import UserError
from components.serving.description import (
    adapter_folders,
    base_config,
    coefficients,
    dataset_settings,
    merged_name,
    read_description,
)

# The only values that vLLM takes for --max-lora-rank (vllm/config/lora.py); an adapter of any rank up to it loads.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
TEMPLATES = jinja2.Environment(  # noqa: S701 - Markdown, not HTML
    loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
)


def export(folder: Path, target: Path, version: str) -> dict[str, Path]:
    """Write the ensemble in ``folder`` to ``target``, which must be empty or not be there.

    Args:
        version: its number in the registry, for the model cards.

    Returns:
        Dataset -> its adapter's folder.

    Raises:
        UserError: ``target`` holds something already.
    """
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty", remedy="export into a new folder")
    description = read_description(folder)
    shutil.copytree(folder, target / "ensemble", dirs_exist_ok=True)
    adapters = {}
    for name in description["datasets"]:
        adapters[name] = target / "datasets" / name
        _write_adapter(folder, adapters[name], description, name, version)
    ranks = [json.loads((path / SETTINGS).read_text())["r"] for path in adapters.values()]
    rank = next((one for one in VLLM_RANKS if one >= max(ranks)), VLLM_RANKS[-1])
    text = TEMPLATES.get_template("export.md.j2").render(
        name=description["name"], version=version, base=description["base"], datasets=sorted(adapters), rank=rank
    )
    (target / "README.md").write_text(text, encoding="utf-8")
    return adapters


def served_adapter(description: Mapping[str, Any], dataset: str) -> str:
    """The one adapter that stands for a dataset's row of weights; of a completion dataset, the weightiest."""
    if dataset in description.get("merged", {}):
        return merged_name(dataset)
    parts = coefficients(description, dataset)
    return max(parts, key=lambda name: parts[name])


def merge_into_base(folder: Path, dataset: str, target: Path) -> None:
    """Write the base model with a dataset's adapter merged into its weights, tokenizer included.

    The base's weights are taken in bfloat16 or float32, never in four bits: an adapter trained on a 4-bit base answers
    slightly otherwise on them.

    Raises:
        UserError: there is no such dataset, or the base cannot be loaded.
    """
    from peft import PeftModel

    from components.language_model import load_base
    from components.serving.predict import check_base

    description = read_description(folder)
    dataset_settings(description, dataset)
    base = load_base(base_config(description, folder).model_copy(update={"quantization": "none"}))
    check_base(base, description)
    adapter = folder / adapter_folders(description)[served_adapter(description, dataset)]
    merged: Any = PeftModel.from_pretrained(base.model, str(adapter)).merge_and_unload()
    merged.save_pretrained(str(target))
    base.tokenizer.save_pretrained(str(target))


def _write_adapter(folder: Path, target: Path, description: Mapping[str, Any], dataset: str, version: str) -> None:
    target.mkdir(parents=True)
    name = served_adapter(description, dataset)
    source = folder / adapter_folders(description)[name]
    for file in PEFT_FILES:
        shutil.copyfile(source / file, target / file)
    parts = coefficients(description, dataset)
    stands_for = parts if name == merged_name(dataset) else {name: 1.0}
    trained_on = {one["name"]: one["datasets"] for one in description["members"] if one["name"] in stands_for}
    card = TEMPLATES.get_template("card.md.j2").render(
        ensemble=description["name"],
        version=version,
        dataset=dataset,
        settings=description["datasets"][dataset],
        base=description["base"],
        parts=stands_for,
        temperature=description["temperatures"][dataset],
        trained_on=trained_on,
        merged=description.get("merged", {}).get(dataset),
        results=description.get("results", {}).get(dataset, {}),
        exact=len(parts) == 1,
    )
    (target / "README.md").write_text(card, encoding="utf-8")
