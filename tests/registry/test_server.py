"""The server over real HTTP: answers, refusals, metrics, and a promotion under load."""

import http.client
import json
import shutil
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mlflow import MlflowClient

from components import tracking
from components.config import ModelConfig
from components.errors import UserError
from components.registry import register
from components.registry.live_model import LiveModel
from components.registry.server import bind, build_app
from components.serving.metrics import ServingMetrics
from components.serving.predict import EnsemblePredictor
from tests.tiny_ensemble import write_base, write_ensemble

NAME = "desk"
TEXTS = ["so glad", "what a day", "rain", "naïve ☂", "all is well"]


@dataclass
class Served:
    """A server on a port of this machine, and the two ensembles it may serve."""

    url: str
    client: MlflowClient
    live: LiveModel
    expected: dict[str, dict[str, float]]  # version -> text -> probability of its label
    server: uvicorn.Server

    def ask(self, body: Any, path: str = "/invocations", **headers: str) -> tuple[int, Any, str]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
                version = answer.headers.get("x-loraloom-version", "")
                return answer.status, json.loads(text) if text.startswith("{") else text, version
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), ""


def records(*rows: dict[str, str], **params: Any) -> dict[str, Any]:
    return {"dataframe_records": list(rows), **({"params": params} if params else {})}


def register_two(client: MlflowClient, folder: Path, model: ModelConfig) -> dict[str, dict[str, float]]:
    """Two versions with other weights; what each should say of the texts."""
    write_ensemble(folder / "one", model)
    shutil.copytree(folder / "one", folder / "two")
    description = json.loads((folder / "two" / "ensemble.json").read_text())
    description["weights"]["mood"] = [0.0, 1.0, 0.0]
    (folder / "two" / "ensemble.json").write_text(json.dumps(description))
    expected = {}
    for name in ("one", "two"):
        run_id = tracking.open_run(client, NAME, name)
        made = register.register_ensemble(client, NAME, run_id, folder / name, adapters={}, metrics={})
        found = EnsemblePredictor.load(folder / name, model).predict("mood", {"text": TEXTS}).max(axis=1)
        expected[made.version] = dict(zip(TEXTS, found.tolist(), strict=True))
    assert all(abs(expected["1"][text] - expected["2"][text]) > 1e-3 for text in TEXTS)
    return expected


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("live-server")
    client = tracking.connect(f"sqlite:///{folder}/mlflow.db")
    expected = register_two(client, folder, write_base(folder / "base"))
    client.set_registered_model_alias(NAME, "champion", "1")
    live = LiveModel(client, NAME, "champion", ServingMetrics())
    app = build_app(live, seconds_between_looks=0.2, most_bytes=20_000)
    server, listener = uvicorn.Server(uvicorn.Config(app, log_level="warning")), bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        threading.Event().wait(0.05)
    yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", client, live, expected, server)
    server.should_exit = True
    thread.join()


def test_rows_are_answered(served: Served) -> None:
    assert served.ask(None, "/ping")[0] == 200
    rows = [{"dataset": "mood", "text": text} for text in TEXTS]
    status, body, version = served.ask(records(*rows, {"dataset": "pair", "text": "a", "text_pair": "b"}))
    assert (status, version) == (200, served.live.version)
    for text, row in zip(TEXTS, body["predictions"], strict=False):
        assert row["probability"] == pytest.approx(served.expected[version][text], abs=1e-5)
        assert row["dataset"] == "mood" and row["label"] in ("negative", "positive")
    assert body["predictions"][-1]["label"] in ("entails", "contradicts", "neutral")
    status, body, _ = served.ask(records(rows[0], return_probabilities=True, mode="merged"))
    assert status == 200 and sum(body["predictions"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (records({"dataset": "weather", "text": "x"}), {}, 400, "no dataset 'weather'"),
        (records({"dataset": "pair", "text": "x"}), {}, 400, "not given: text_pair"),
        (records({"text": "x"}), {}, 400, "no router"),
        (records({"dataset": "mood", "text": "x"}, mode="fast"), {}, 400, "mode is auto, exact or merged"),
        (records({"dataset": "mood", "text": "\ud800"}), {}, 400, "surrogates not allowed"),
        (records({"txet": "x"}), {}, 400, "no column is known; there are: dataset, text, text_pair"),
        (b'{"dataframe_records": %s}' % (b"[" * 9000 + b"]" * 9000), {}, 400, "nested too deeply"),
        (b"{", {}, 400, "JSON"),
        ({"rows": []}, {}, 400, "dataframe_split"),
        (b"<x/>", {"Content-Type": "text/xml"}, 415, "content types"),
        (b" " * 20_001, {}, 413, "20001 bytes, more than 20000"),
    ],
)
def test_bad_requests_get_a_clear_answer(
    served: Served, body: Any, headers: dict[str, str], status: int, message: str
) -> None:
    found, text, _ = served.ask(body, **headers)
    assert found == status
    assert message in text


def test_a_bad_request_does_not_spoil_its_neighbours(served: Served) -> None:
    good = records({"dataset": "mood", "text": TEXTS[0]})
    bad = records({"dataset": "weather", "text": "x"})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(served.ask, [good, bad] * 8))
    assert [status for status, _, _ in found] == [200, 400] * 8
    for _, body, version in found[::2]:
        [row] = body["predictions"]
        assert row["probability"] == pytest.approx(served.expected[version][TEXTS[0]], abs=1e-5)


def test_a_promotion_under_load_loses_nothing(served: Served) -> None:
    def ask(i: int) -> tuple[int, float, str, str]:
        text = TEXTS[i % len(TEXTS)]
        if i == 30:
            served.client.set_registered_model_alias(NAME, "champion", "2")
        status, body, version = served.ask(records({"dataset": "mood", "text": text}))
        return status, body["predictions"][0]["probability"], text, version

    answered = []
    with ThreadPoolExecutor(6) as pool:
        while served.live.version == "1":
            answered += pool.map(ask, range(len(answered), len(answered) + 40))
            assert len(answered) < 4000, "the promotion is never picked up"
        answered += pool.map(ask, range(1000, 1040))
    assert {status for status, *_ in answered} == {200}
    for _, probability, text, version in answered:
        assert probability == pytest.approx(served.expected[version][text], abs=1e-5)
    assert {version for *_, version in answered[-40:]} == {"2"}


def test_metrics_count_what_happened(served: Served) -> None:
    def count(name: str) -> float:
        text = served.ask(None, "/metrics")[1]
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = {
        name: count(name)
        for name in (
            'loraloom_requests_total{status="200"}', 'loraloom_requests_total{status="400"}',
            'loraloom_rows_total{dataset="mood"}', 'loraloom_errors_total{dataset="other"}',
        )
    }  # fmt: skip
    served.ask(records({"dataset": "mood", "text": "a"}, {"dataset": "mood", "text": "b"}))
    served.ask(records({"dataset": "made-up", "text": "a"}))
    assert [count(name) - value for name, value in before.items()] == [1, 1, 2, 1]
    assert "made-up" not in served.ask(None, "/metrics")[1]
    assert count("loraloom_model_version") == float(served.live.version)
    assert count("loraloom_request_seconds_count") > 0


def test_no_answer_waits_for_more_to_send(served: Served) -> None:
    address = urllib.parse.urlsplit(served.url).netloc
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/ping")
    assert connection.getresponse().read() == b"\n"
    [held] = served.server.server_state.connections
    accepted = held.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    connection.close()


def test_no_version_has_the_alias(served: Served) -> None:
    with pytest.raises(UserError, match="no version of desk is the nobody"):
        LiveModel(served.client, NAME, "nobody", ServingMetrics())


def test_a_version_that_this_release_cannot_read_does_not_take_over(
    served: Served, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    [folder] = tmp_path_factory.getbasetemp().glob("live-server0/one")
    shutil.copytree(folder, tmp_path / "later")
    description = json.loads((folder / "ensemble.json").read_text()) | {"schema": 99, "loraloom_version": "9.0.0"}
    (tmp_path / "later" / "ensemble.json").write_text(json.dumps(description))
    run_id = tracking.open_run(served.client, NAME, "later")
    made = register.register_ensemble(served.client, NAME, run_id, tmp_path / "later", adapters={}, metrics={})
    before = served.live.version
    served.client.set_registered_model_alias(NAME, "champion", made.version)
    with pytest.raises(Exception, match=r"made by loraloom 9\.0\.0 in layout 99"):
        served.live.refresh()
    served.client.set_registered_model_alias(NAME, "champion", before)
    status, _, version = served.ask(records({"dataset": "mood", "text": TEXTS[0]}))
    assert (status, version) == (200, before)
