"""A real HTTP server that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener(ThreadingHTTPServer):
    """Answers with the codes of ``answers`` in turn, then with 200; ``received`` holds the bodies, parsed."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.received = answers, list[dict[str, Any]]()
        self.types: list[str | None] = []

    @property
    def url(self) -> str:
        """An address with a secret in it, as such addresses have."""
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/S3CR3T"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.types.append(self.headers["Content-Type"])
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(*answers: int) -> Iterator[Listener]:
    """A listener on a free port of this machine while the block runs."""
    with Listener(list(answers)) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield listener
        listener.shutdown()
        thread.join()
