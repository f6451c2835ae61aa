"""MLflow's scoring server around a live model: its protocol and paths, with limits, metrics and promotions on top."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from mlflow.pyfunc import PyFuncModel, scoring_server

from components.errors import UserError
from components.registry.live_model import LiveModel, answered_by

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**20  # of a request's body
CALLS_AT_ONCE = 64  # calls that may wait for a batch; further ones wait for a thread
PATHS = ("/invocations",)


def build_app(live: LiveModel, *, seconds_between_looks: float = 30.0, most_bytes: int = MOST_BYTES) -> FastAPI:
    """The HTTP application: ``/ping``, ``/health``, ``/version``, ``/invocations`` as MLflow has them, ``/metrics``.

    Args:
        seconds_between_looks: how often the alias is re-read.
        most_bytes: a larger body is refused with 413.
    """
    app: FastAPI = scoring_server.init(cast("PyFuncModel", live))  # of which it asks `metadata` and `predict` only
    app.router.lifespan_context = lambda _: _lifespan(live, seconds_between_looks)
    app.get("/metrics")(lambda: Response(live.metrics.page(), media_type="text/plain; version=0.0.4"))

    @app.middleware("http")
    async def guard(request: Request, pass_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path not in PATHS:
            return await pass_on(request)
        begin, told = time.perf_counter(), list[str]()
        answered_by.set(told)
        try:
            response = _refusal(request, most_bytes) or await pass_on(request)
        except RecursionError:
            response = _told(400, "the JSON is nested too deeply")
        response.headers["x-loraloom-version"] = told[-1] if told else live.version
        live.metrics.requests.labels(str(response.status_code)).inc()
        live.metrics.latency.observe(time.perf_counter() - begin)
        return response

    return app


def _refusal(request: Request, most_bytes: int) -> Response | None:
    """What to answer to a request that is not worth reading."""
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        return _told(411, "Content-Length is required")
    if int(length) > most_bytes:
        return _told(413, f"the body has {length} bytes, more than {most_bytes}; send the rows in several requests")
    if "content-type" not in request.headers:
        return _told(415, "Content-Type is required: application/json, text/csv or application/vnd.apache.parquet")
    return None


def _told(status: int, message: str) -> Response:
    return JSONResponse({"error_code": "BAD_REQUEST", "message": message}, status)


@asynccontextmanager
async def _lifespan(live: LiveModel, seconds: float) -> AsyncIterator[None]:
    pool = ThreadPoolExecutor(CALLS_AT_ONCE)
    asyncio.get_running_loop().set_default_executor(pool)
    looking = asyncio.create_task(_look(live, seconds))
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        live.close()


async def _look(live: LiveModel, seconds: float) -> None:
    """Re-read the alias now and then. A registry out of reach must not end a server that has a model."""
    while True:
        await asyncio.sleep(seconds)
        try:
            if await asyncio.to_thread(live.refresh):
                log.warning("version %s of %s serves now", live.version, live.name)
        except Exception:
            log.exception("the %s of %s could not be followed; version %s stays", live.alias, live.name, live.version)


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address. It does not listen yet, so that clients are refused until there is a model.

    Raises:
        UserError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends an answer at once (TCP_NODELAY) only where the protocol is named: else every one waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UserError(
            f"{host}:{port} cannot be listened on: {error.strerror}", remedy="give another --port or --host"
        ) from error
    return bound


def serve(live: LiveModel, listener: socket.socket, seconds_between_looks: float) -> None:
    """Serve until interrupted; requests under way are answered first."""
    import uvicorn

    app = build_app(live, seconds_between_looks=seconds_between_looks)
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=30)
    with suppress(KeyboardInterrupt):  # uvicorn raises it anew when it has ended
        uvicorn.Server(settings).run(sockets=[listener])
