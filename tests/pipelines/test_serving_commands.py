"""serve, predict and export as a user meets them, on a registered ensemble of a tiny model, by its name.

What the answers must be is computed by plain transformers and peft.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from components import tracking
from components.config import ModelConfig
from components.registry import register
from components.serving.predict import EnsemblePredictor
from pipelines.cli import app
from tests.pipelines.test_cluster import bucket
from tests.tiny_ensemble import LABELS, TEMPLATES, write_base, write_ensemble

TEXTS = ["so glad", "what a day", "rain", "all is well"]
ROOT = Path(__file__).parents[2]


def loraloom(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, model: ModelConfig) -> Iterator[Path]:
    """The store that MLFLOW_TRACKING_URI names: version 1 of ``desk`` is the champion."""
    folder = tmp_path_factory.mktemp("registry")
    client = tracking.connect(f"sqlite:///{folder}/mlflow.db")
    write_ensemble(folder / "ensemble", model)
    run_id = tracking.open_run(client, "desk", "run")
    register.register_ensemble(client, "desk", run_id, folder / "ensemble", adapters={}, metrics={})
    client.set_registered_model_alias("desk", "champion", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        yield folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [{"dataset": "mood", "text": text} for text in TEXTS] + [{"dataset": "nowhere", "text": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def expected(registry: Path, model: ModelConfig, mode: Any = "auto") -> np.ndarray:
    return EnsemblePredictor.load(registry / "ensemble", model).predict("mood", {"text": TEXTS}, mode)


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["desk", "desk@champion", "desk/1", "models:/desk@champion"])
def test_a_file_is_scored_by_a_model_that_is_named(
    registry: Path, model: ModelConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where no config lies
    done = loraloom("predict", source, "-o", "out.jsonl", "--model", name)
    assert done.exit_code == 0, done.stderr
    assert "4 records scored by version 1: out.jsonl; 1 could not be, see out.jsonl.bad.jsonl" in done.stdout
    found = answers(tmp_path / "out.jsonl")
    probabilities = expected(registry, model)
    assert [row["text"] for row in found] == TEXTS
    assert [row["predicted_label"] for row in found] == [LABELS["mood"][i] for i in probabilities.argmax(axis=1)]
    np.testing.assert_allclose([row["probability"] for row in found], probabilities.max(axis=1), atol=1e-5)


def test_the_mode_is_passed_on(registry: Path, model: ModelConfig, source: Path, tmp_path: Path) -> None:
    assert loraloom("predict", source, "-o", tmp_path / "out.jsonl", "-m", "desk", "--mode", "merged").exit_code == 0
    merged, exact = expected(registry, model, "merged"), expected(registry, model, "exact")
    assert np.abs(merged - exact).max() > 0.01
    found = [row["probability"] for row in answers(tmp_path / "out.jsonl")]
    np.testing.assert_allclose(found, merged.max(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "desk@nobody"], "no version of desk is the nobody\n-> run the pipeline first"),
        (["--model", "desk/7"], "desk has no version 7"),
        (["--model", "none"], "`loraloom history` says why none was promoted"),
        (["--model", "a b@c@d"], "'a b@c@d' names no registered model"),
        (["--model", "desk@champion", "--version", "2"], "two answers to one question"),
    ],
)
def test_a_model_that_is_not_there(registry: Path, source: Path, arguments: list[str], says: str) -> None:
    for command in (["predict", source, "-o", "out.jsonl"], ["export", "-o", "out"], ["serve", "--port", free_port()]):
        refused = loraloom(*command, *arguments)
        assert refused.exit_code == 2
        assert says in refused.stderr


def test_without_a_server_it_says_what_to_set(
    registry: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    refused = loraloom("predict", source, "-o", tmp_path / "out.jsonl", "--model", "desk")
    assert refused.exit_code == 2
    assert "set MLFLOW_TRACKING_URI" in refused.stderr


def test_a_config_names_the_same_ensemble(registry: Path, model: ModelConfig, source: Path, tmp_path: Path) -> None:
    settings = {
        "name": "desk",
        "model": {"id": model.id},
        "datasets": [{"name": "mood", "path": "mood.jsonl"}],
        "tracking": {"uri": f"sqlite:///{registry}/mlflow.db"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    done = loraloom("predict", source, "-o", tmp_path / "out.csv", "-c", tmp_path / "config.yaml", "--version", 1)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "dataset,text,predicted_label,probability"


@pytest.mark.parametrize(
    ("source", "output", "says"),
    [
        ("in.jsonl", "./in.jsonl", "in.jsonl would replace in.jsonl, its source"),
        ("in.bad.jsonl", "in", "in would replace in.bad.jsonl, its source"),
        ("in.jsonl", "in.jsonl/out.jsonl", "in.jsonl/out.jsonl cannot be written"),
        ("in.jsonl", "folder.jsonl", "folder.jsonl cannot be written: Is a directory"),
        ("nosuch.jsonl", "out.jsonl", "there is no file nosuch.jsonl\n-> relative paths start at"),
    ],
)
def test_what_cannot_be_written_is_told_before_any_record_is_scored(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("in.jsonl", "in.bad.jsonl"):
        Path(name).write_text('{"dataset": "mood", "text": "rain"}\n')
    refused = loraloom("predict", source, "-o", output, "--model", "desk")
    assert (refused.exit_code, says in refused.stderr) == (2, True), refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"folder.jsonl", "in.jsonl", "in.bad.jsonl"}


def plain_probabilities(loaded: Any, model: ModelConfig, dataset: str, fields: dict[str, str]) -> np.ndarray:
    """By nothing of ours: probabilities of the labels, read off the tokens that the folder's card lists."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model.id)
    tokens = [tokenizer.encode(word, add_special_tokens=False)[0] for word in {"mood": ["bad", "good"]}[dataset]]
    ids = tokenizer(TEMPLATES[dataset].format(**fields), return_tensors="pt").input_ids
    with torch.inference_mode():
        return softmax(loaded(input_ids=ids).logits[0, -1, tokens].double().numpy() / 1.5)  # the card's temperature


def test_what_is_exported_answers_the_same_without_us(registry: Path, model: ModelConfig, tmp_path: Path) -> None:
    done = loraloom("export", "-o", tmp_path / "out", "--model", "desk@champion", "--merge-into-base", "mood")
    assert done.exit_code == 0, done.stderr
    folder = tmp_path / "out" / "desk" / "1"
    assert f"wrote {folder}" in done.stdout
    base = AutoModelForCausalLM.from_pretrained(model.id, dtype=torch.float32)
    assert "divide them by the temperature 1.5 before" in (folder / "datasets" / "mood" / "README.md").read_text()
    adapted = PeftModel.from_pretrained(base, str(folder / "datasets" / "mood")).eval()
    whole = AutoModelForCausalLM.from_pretrained(folder / "merged" / "mood", dtype=torch.float32).eval()
    ours = expected(registry, model, "merged")
    for text, row in zip(TEXTS, ours, strict=True):
        for loaded in (adapted, whole):
            np.testing.assert_allclose(plain_probabilities(loaded, model, "mood", {"text": text}), row, atol=2e-5)
    again = loraloom("export", "-o", tmp_path / "out", "--model", "desk@champion")
    assert again.exit_code == 2 and "is not empty" in again.stderr


def test_an_export_that_is_refused_leaves_nothing(registry: Path, tmp_path: Path) -> None:
    unknown = loraloom("export", "-o", tmp_path / "out", "--model", "desk", "--merge-into-base", "moood")
    assert (unknown.exit_code, "no dataset 'moood'" in unknown.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    beside = loraloom("export", "-o", tmp_path / "file", "--model", "desk")
    assert (beside.exit_code, f"{tmp_path}/file/desk/1 cannot be written" in beside.stderr) == (2, True)


def test_files_in_a_bucket_are_reached_as_the_environment_says(
    registry: Path, source: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(endpoint, "scored", monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3 = boto3.client("s3")
    s3.upload_file(str(source), "scored", "in.jsonl")
    files = ("predict", "s3://scored/in.jsonl", "-o", "s3://scored/out/a.jsonl")
    assert loraloom(*files, "--model", "desk").exit_code == 0
    s3.download_file("scored", "out/a.jsonl", str(tmp_path / "a.jsonl"))
    assert [row["text"] for row in answers(tmp_path / "a.jsonl")] == TEXTS
    done = loraloom("export", "-o", "s3://scored/models/", "--model", "desk")
    assert "wrote s3://scored/models/desk/1" in done.stdout
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket="scored", Prefix="models/")["Contents"]}
    assert {f"models/desk/1/{file}" for file in ("README.md", "datasets/mood/adapter_config.json")} <= keys
    again = loraloom("export", "-o", "s3://scored/models", "--model", "desk")
    assert (again.exit_code, "s3://scored/models/desk/1 is not empty" in again.stderr) == (2, True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_serve_answers_and_ends_well(registry: Path, model: ModelConfig, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--model", "desk@champion", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert server.stdout is not None
        said = next((line for line in server.stdout if "version 1 of desk at" in line), "")
        assert url in said
        body = {"dataframe_records": [{"dataset": "mood", "text": text} for text in TEXTS]}
        request = urllib.request.Request(
            f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with _opened(request) as answer:
            found = json.loads(answer.read())["predictions"]
        np.testing.assert_allclose([row["probability"] for row in found], expected(registry, model).max(1), atol=1e-5)
    finally:
        server.send_signal(signal.SIGTERM)
        rest = server.communicate(timeout=60)[0]
    assert server.returncode in (0, -signal.SIGTERM), rest


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(registry: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = loraloom("serve", "--model", "desk", "--port", port)
    assert refused.exit_code == 2
    assert f"error: 127.0.0.1:{port} cannot be listened on: Address already in use" in refused.stderr
    assert "error: no.such.host.invalid:8000 cannot be" in (
        loraloom("serve", "--model", "desk", "--host", "no.such.host.invalid").stderr
    )


def _opened(request: urllib.request.Request) -> Any:
    """The answer, once the socket is open."""
    for _ in range(600):
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            threading.Event().wait(0.1)
    raise AssertionError("it never listened")
