"""Kubeflow Pipelines' API v2beta1 as far as loraloom asks it: a real HTTP server with its state in memory, and faults.

It refuses what the API would refuse, keeps what it was sent for tests to look at, and can drop connections, answer with
errors, or not at all.
"""

import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "/apis/v2beta1/"
Thing = dict[str, Any]


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str  # below the API's prefix
    query: dict[str, str]
    headers: dict[str, str]
    body: Any  # JSON read, the uploaded file's text, or None


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests of this kind.

    kind: "drop" (closed before anything is done), "lost" (done, then closed), "silent" (no answer), "login" (a page of
    HTML), or a status.
    """

    method: str
    path: str
    kind: str | int
    times: int = 1


class Refused(Exception):
    """A status and what the API says."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclass
class KfpStub:
    """The server's state, and what was asked of it; ``storage`` are the settings of the bucket beside it."""

    url: str = ""
    storage: Thing = field(default_factory=dict)
    token: str | None = None
    multi_user: bool = False
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    experiments: list[Thing] = field(default_factory=list)
    pipelines: list[Thing] = field(default_factory=list)
    versions: list[Thing] = field(default_factory=list)
    runs: list[Thing] = field(default_factory=list)
    recurringruns: list[Thing] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests of this method whose path is exactly this."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def fail(self, method: str, path: str, kind: str | int, times: int = 1) -> None:
        """Let the next requests to this path go wrong."""
        self.faults.append(Fault(method, path, kind, times))

    def fault(self, request: Request) -> str | int:
        """The fault that this request meets, "" for none."""
        for fault in self.faults:
            if fault.times and (fault.method, fault.path) == (request.method, request.path):
                fault.times -= 1
                return fault.kind
        return ""

    def answer(self, request: Request) -> Thing:
        """Do what is asked."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request not authenticated")
        parts = re.split(r"[/:]", request.path)
        match (request.method, *parts):
            case ("GET", "healthz"):
                return {"multi_user": True} if self.multi_user else {}
            case ("GET", "pipelines", pipeline, "versions"):
                return {"pipeline_versions": self._found(self.versions, request, pipeline_id=pipeline)}
            case ("POST", "pipelines", "upload_version"):
                return self._upload(request)
            case ("GET", "runs" | "recurringruns" as kind, name):
                return self._one(kind, name)
            case ("POST", "recurringruns", name, "enable" | "disable" as mode):
                self._one("recurringruns", name)["status"] = f"{mode.upper()}D"
                return {}
            case ("DELETE", "recurringruns", name):
                self.recurringruns.remove(self._one("recurringruns", name))
                return {}
            case ("GET", "experiments" | "pipelines" | "runs" | "recurringruns" as kind):
                within = {key: request.query[key] for key in ("experiment_id", "namespace") if request.query.get(key)}
                plural = {"recurringruns": "recurringRuns"}.get(kind, kind)
                return {plural: self._found(getattr(self, kind), request, **within)}
            case ("POST", "experiments" | "pipelines" | "runs" | "recurringruns" as kind):
                return self._create(kind, request.body)
        raise Refused(404, f"no {request.method} {request.path}")

    def _found(self, things: list[Thing], request: Request, **within: str) -> list[Thing]:
        chosen = [thing for thing in things if all(thing.get(key) == value for key, value in within.items())]
        for predicate in json.loads(request.query.get("filter") or "{}").get("predicates", []):
            assert predicate["operation"] in (1, "EQUALS")
            chosen = [thing for thing in chosen if thing[predicate["key"]] == predicate["stringValue"]]
        if request.query.get("sort_by", "").endswith(" desc"):
            chosen.reverse()
        return chosen[: int(request.query.get("page_size") or 10)]

    def _one(self, kind: str, name: str) -> Thing:
        key = {"runs": "run_id", "recurringruns": "recurring_run_id"}[kind]
        for thing in getattr(self, kind):
            if thing[key] == name:
                return thing
        raise Refused(404, f"{name} not found")

    def _create(self, kind: str, body: Thing) -> Thing:
        if not body.get("display_name"):
            raise Refused(400, "display_name is empty")
        if kind in ("runs", "recurringruns"):
            reference = body["pipeline_version_reference"]
            if reference["pipeline_version_id"] not in [version["pipeline_version_id"] for version in self.versions]:
                raise Refused(400, "no such pipeline version")
        elif any(
            all(thing.get(key) == body.get(key) for key in ("display_name", "namespace"))
            for thing in getattr(self, kind)
        ):
            raise Refused(409, f"{body['display_name']} exists already")
        key = {"experiments": "experiment_id", "pipelines": "pipeline_id", "runs": "run_id"}
        made = {**body, key.get(kind, "recurring_run_id"): uuid.uuid4().hex, "created_at": _now()}
        if kind == "runs":
            made["state"] = "PENDING"
        if kind == "recurringruns":
            made["status"] = f"{body['mode']}D"
        getattr(self, kind).append(made)
        return made

    def _upload(self, request: Request) -> Thing:
        name, pipeline = request.query["name"], request.query["pipelineid"]
        version = {"pipeline_id": pipeline, "display_name": name, "created_at": _now(), "text": request.body}
        self.versions.append({**version, "pipeline_version_id": uuid.uuid4().hex})
        return self.versions[-1]


@contextmanager
def kfp_stub(certificate: Path | None = None) -> Iterator[KfpStub]:
    """A stub at work; with a file of certificate and key, over TLS."""
    stub = KfpStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            request = _read(self)
            stub.requests.append(request)
            fault = stub.fault(request)
            if fault == "silent":
                stub.stopped.wait()
            if fault in ("silent", "drop"):
                self.close_connection = True
            elif fault == "login":
                self._send(200, b"<html>Sign in</html>", "text/html")
            elif isinstance(fault, int):
                self._say(fault, "the stub was told to fail")
            else:
                self._do(request, lost=fault == "lost")

        def _do(self, request: Request, *, lost: bool) -> None:
            try:
                found = stub.answer(request)
            except Refused as refusal:
                self._say(refusal.status, refusal.message)
                return
            if lost:
                self.close_connection = True
            else:
                self._send(200, json.dumps(found).encode(), "application/json")

        def _say(self, status: int, message: str) -> None:
            self._send(status, json.dumps({"code": 2, "message": message}).encode(), "application/json")

        def _send(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        do_GET = do_POST = do_DELETE = _handle

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        stub.url = f"http://127.0.0.1:{server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            stub.url = stub.url.replace("http:", "https:")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield stub
        finally:
            stub.stopped.set()
            server.shutdown()


def _read(handler: BaseHTTPRequestHandler) -> Request:
    address = urlsplit(handler.path)
    headers = {name.lower(): value for name, value in handler.headers.items()}
    data = handler.rfile.read(int(headers.get("content-length", 0)))
    kind = headers.get("content-type", "")
    body: Any = json.loads(data) if data and "json" in kind else None
    if "multipart/form-data" in kind:
        parts: Any = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + data).get_payload()
        (body,) = [part.get_payload(decode=True).decode() for part in parts]
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert address.path.startswith(PREFIX), address.path
    return Request(handler.command, address.path.removeprefix(PREFIX), query, headers, body)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
