"""Moto's S3 application behind a server of our own: over TLS, or with faults put in its answers."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Fault = Callable[[Application, Environ, Callable[..., Any]], Iterable[bytes]]


@contextmanager
def serve(app: Application, certificate: tuple[str, str] | None = None) -> Iterator[str]:
    """Serve ``app`` on this machine, with TLS where a certificate and its key are given; yields its address."""
    server = make_server("localhost", 0, app, threaded=True, ssl_context=certificate)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://localhost:{server.port}"
    finally:
        server.shutdown()
        thread.join()


def moto() -> Application:
    """The same buckets as every other moto server in this process has."""
    return DomainDispatcherApplication(create_backend_app)


class Faulty:
    """Moto, but the next requests of a method meet the faults that wait for it."""

    def __init__(self) -> None:
        self.app, self.faults = moto(), dict[str, list[Fault]]()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        waiting = self.faults.get(environ["REQUEST_METHOD"])
        return (waiting.pop(0) if waiting else pass_on)(self.app, environ, start_response)


def pass_on(app: Application, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return app(environ, start_response)


def refuse(status: str, code: str) -> Fault:
    """An S3 error instead of the answer."""

    def fault(app: Application, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()]

    return fault


def break_off(app: Application, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The connection ends after half of the announced body."""
    body = b"".join(app(environ, start_response))
    yield body[: len(body) // 2]
