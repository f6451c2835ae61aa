"""Alerts as a listener gets them: the payload, patience with a server in trouble, and no harm done by a dead one."""

import socket
from datetime import datetime

import pytest

from components import alerts
from components.config import RunConfig
from components.config_file import read_config
from components.errors import UserError
from tests.listener import listening

CONFIG = RunConfig.model_validate({"name": "desk", "model": {"id": "m"}, "datasets": [{"name": "a", "path": "p"}]})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(alerts, "PAUSE", 0.001)
    monkeypatch.delenv("LORALOOM_WEBHOOK", raising=False)


def send(monkeypatch, url):
    monkeypatch.setenv("LORALOOM_WEBHOOK", url)
    return alerts.alert(CONFIG, "desk-1", "drift", "a moved", {"by_dataset": {"a": {"labels": 0.5}}})


def test_the_payload(monkeypatch):
    with listening() as listener:
        assert send(monkeypatch, listener.url) == ""
        assert alerts.alert_failure(CONFIG, "desk-2", "no memory", {"log": "x.log"}) == ""
    first, second = listener.received
    assert datetime.fromisoformat(first.pop("time")).utcoffset().total_seconds() == 0
    assert first == {
        "schema": 1,
        "event": "drift",
        "text": "a moved",
        "name": "desk",
        "run_name": "desk-1",
        "details": {"by_dataset": {"a": {"labels": 0.5}}},
    }
    assert (second["event"], second["text"]) == ("run_failed", "run desk-2 of desk failed: no memory")
    assert listener.types == ["application/json"] * 2


def test_nobody_asked_for_alerts():
    assert alerts.alert(CONFIG, "desk-1", "drift", "a moved", {}) == ""


def test_a_server_in_trouble_is_asked_again(monkeypatch):
    with listening(503, 429, 500) as listener:
        assert send(monkeypatch, listener.url) == ""
    assert len(listener.received) == 4


@pytest.mark.parametrize(
    ("answers", "attempts", "trouble"),
    [((500,) * 9, 4, "HTTP 500"), ((404,), 1, "HTTP 404"), ((302,), 1, "HTTP 302")],
)
def test_what_cannot_be_delivered_is_said_without_the_address(monkeypatch, answers, attempts, trouble):
    with listening(*answers) as listener:
        said = send(monkeypatch, listener.url)
    assert said == f"the alert 'drift' did not reach the webhook in LORALOOM_WEBHOOK: {trouble}"
    assert len(listener.received) == attempts


def test_nobody_listens(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/S3CR3T", "no address S3CR3T"):
        said = send(monkeypatch, url)
        assert said.startswith("the alert 'drift' did not reach") and "S3CR3T" not in said


def test_the_address_itself_is_refused_in_the_config_and_not_repeated(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {id: m}\ndatasets: [{name: a, path: p}]\nalerts: {webhook_env: 'https://hooks.example.org/S3CR3T'}\n"
    )
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert "config.yaml:3: alerts.webhook_env: should be an environment variable's name" in str(caught.value)
    assert "S3CR3T" not in str(caught.value)
