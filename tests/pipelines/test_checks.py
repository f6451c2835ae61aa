"""What is found wrong before a run, without loading weights."""

import json
from pathlib import Path

import pytest

import pipelines
from components.config import ModelConfig, RunConfig
from pipelines.checks import check, model_problems

BASE_MODEL = Path(pipelines.__file__).parent / "demo" / "base_model"


def test_label_words_without_a_token_of_their_own_are_noted(tmp_path: Path) -> None:
    rows = [{"text": f"house {number}", "label": ("yes", "no")[number % 2]} for number in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "a", "path": str(tmp_path / "a.jsonl"), "labels": {"yes": "not so", "no": "not at all"}}
    findings = check(RunConfig.model_validate({"model": {"id": str(BASE_MODEL)}, "datasets": [entry]}))
    assert findings.problems == ()
    assert len(findings.notes) == 1
    assert findings.notes[0].startswith("a: label 'not ")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", '{"architectures": ["BertForMaskedLM"]}', "holds a BertForMaskedLM, not a causal"),
        ("config.json", '{"max_position_embeddings": 256}', "takes 256 tokens at most, but model.max_length is 512"),
        ("config.json", "{", "cannot be read"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "two.safetensors"}}', "lacks two.safetensors"),
    ],
)
def test_model_folders_that_cannot_work(tmp_path: Path, name: str, content: str, says: str) -> None:
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "one.safetensors").touch()
    model = ModelConfig.model_validate({"id": str(tmp_path)})
    assert model_problems(model) == []
    (tmp_path / name).write_text(content)
    (problem,) = model_problems(model)
    assert says in problem


@pytest.mark.parametrize(
    ("model", "fine"), [("gpt2", True), ("Qwen/Qwen2.5-0.5B", True), ("/no/where", False), ("a/b/c", False)]
)
def test_model_ids(model: str, fine: bool) -> None:
    assert (model_problems(ModelConfig.model_validate({"id": model})) == []) is fine
