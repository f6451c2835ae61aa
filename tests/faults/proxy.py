"""A proxy in front of a real S3 server that does to chosen requests what networks and servers do to them.

It passes requests on byte for byte (the Host header too, so that signatures hold), but the next requests of a method
meet the faults that wait for it.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse


@dataclass(frozen=True)
class Answer:
    """What the real server says."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Exchange(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    protocol_version = "HTTP/1.1"
    server: "FaultProxy"

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        waiting = self.server.faults.get(self.command, [])
        fault = waiting.pop(0) if waiting else pass_on
        self.server.seen.append((self.command, self.path))
        fault(self, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

    def ask(self, body: bytes) -> Answer:
        """The real server's answer."""
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding")]
        found = Answer(answer.status, kept, answer.read())
        connection.close()
        return found

    def tell(self, answer: Answer, body: bytes | None = None) -> None:
        """Send an answer, with another body if one is given; the length announced stays that of the real one."""
        self.send_response(answer.status)
        announced = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            self.send_header(name, value)
        if "content-length" not in announced:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if body is None else body)

    def reset(self) -> None:
        """End the connection with RST, as a crashed peer or a firewall does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


Fault = Callable[[Exchange, bytes], None]


class FaultProxy(ThreadingHTTPServer):
    """Faults by method, each used up by one request; ``seen`` holds what was asked."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.target = urlparse(endpoint).netloc
        self.faults: dict[str, list[Fault]] = {}
        self.seen: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up on a fault is what is wanted."""


@contextmanager
def proxied(endpoint: str) -> Iterator[FaultProxy]:
    """The proxy while the block runs."""
    with FaultProxy(endpoint) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def pass_on(exchange: Exchange, body: bytes) -> None:
    exchange.tell(exchange.ask(body))


def refuse(status: int, code: str) -> Fault:
    """An S3 error instead of the answer."""
    text = f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()
    return lambda exchange, body: exchange.tell(Answer(status, [("Content-Type", "application/xml")], text))


def hang(seconds: float) -> Fault:
    """No answer for so long, then the end of the connection."""

    def fault(exchange: Exchange, body: bytes) -> None:
        time.sleep(seconds)
        exchange.reset()

    return fault


def drip(seconds: float, pieces: int = 10) -> Fault:
    """The answer's body in small pieces with pauses, ``seconds`` altogether."""

    def fault(exchange: Exchange, body: bytes) -> None:
        answer = exchange.ask(body)
        exchange.tell(answer, b"")
        size = -(-len(answer.body) // pieces)
        for start in range(0, len(answer.body), size):
            exchange.wfile.write(answer.body[start : start + size])
            exchange.wfile.flush()
            time.sleep(seconds / pieces)

    return fault


def reset(exchange: Exchange, body: bytes) -> None:
    """The connection breaks before there is an answer, and the real server never hears of the request."""
    exchange.reset()


def reset_after(exchange: Exchange, body: bytes) -> None:
    """The request is carried out, but its answer is lost."""
    exchange.ask(body)
    exchange.reset()


def truncate(exchange: Exchange, body: bytes) -> None:
    """Half of the body that was announced, then the end of the connection."""
    answer = exchange.ask(body)
    exchange.tell(answer, answer.body[: len(answer.body) // 2])
    exchange.reset()


def corrupt(exchange: Exchange, body: bytes) -> None:
    """The whole body, with a byte in its middle turned."""
    answer = exchange.ask(body)
    spoilt = bytearray(answer.body)
    spoilt[len(spoilt) // 2] ^= 0xFF
    exchange.tell(answer, bytes(spoilt))
