"""Requests over HTTP on this machine: our server against MLflow's, at rising concurrency; and a promotion under load.

Both serve the same version, one process each, one row a request, half of them under one adapter and half under four.
They take turns; the one that waits is idle. Clients share the machine with them.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.measure import Row
from benchmarks.setting import MODEL
from components import tracking
from components.adapter_files import WEIGHTS
from components.config import ModelConfig
from components.registry import register
from components.serving.predict import EnsemblePredictor
from tests.tiny_ensemble import write_ensemble

NAME = "bench"
CLIENTS = (1, 2, 4, 8, 16)
ROUNDS, REQUESTS = 5, 48
TEXTS = [f"my card number {i} has not arrived, and nobody tells me why" for i in range(8)]
ASKED = [{"dataset": "mood", "text": text} for text in TEXTS] + [
    {"dataset": "pair", "text": text, "text_pair": "it came today"} for text in TEXTS
]
START_SECONDS, ANSWER_SECONDS, PROMOTION_SECONDS = 180, 60, 120
TOLERANCE = 1e-4  # between a probability and the same one computed alone

Expected = dict[str, list[float]]  # version -> the probability in each answer


@dataclass(frozen=True)
class Answer:
    """What came of one request: how long it took, which row was asked, and its probability; None where it was lost."""

    seconds: float
    row: int
    probability: float | None


def rows() -> list[Row]:
    """The measured rows."""
    with tempfile.TemporaryDirectory(prefix="loraloom-bench-") as temporary:
        folder = Path(temporary)
        client, expected = _registered(folder)
        environment = {**os.environ, "MLFLOW_TRACKING_URI": client.tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow's calls uvicorn
        model = ["-m", f"models:/{NAME}@champion"]
        serve = ["pipelines.cli", "serve", *model]
        ours, watchful = [*serve, "--port"], [*serve, "--look", "0.5", "--port"]
        theirs = ["mlflow", "models", "serve", *model, "--env-manager", "local", "--workers", "1", "--port"]
        with _serving(ours, environment, folder) as our_port, _serving(theirs, environment, folder) as their_port:
            measured = [row for clients in CLIENTS for row in _compared(our_port, their_port, clients)]
        with _serving(watchful, environment, folder) as port:
            measured.append(_promotion(client, port, expected))
    return measured


def _compared(our_port: int, their_port: int, clients: int) -> list[Row]:
    """Throughput and latencies of both at one concurrency."""
    rates: dict[int, list[float]] = {our_port: [], their_port: []}
    taken: dict[int, list[float]] = {our_port: [], their_port: []}
    for number in range(1 + ROUNDS):
        for port in rates:
            begin = time.perf_counter()
            answers = _ask_all(port, clients)
            if number > 0:  # the first round warms up
                rates[port].append(REQUESTS / (time.perf_counter() - begin))
                taken[port] += [answer.seconds * 1000 for answer in answers]
            if any(answer.probability is None for answer in answers):
                raise RuntimeError(f"requests to port {port} failed with {clients} clients")
    who = f"{clients} client{'s' * (clients > 1)}"
    rate, other = (statistics.median(rates[port]) for port in (our_port, their_port))
    # Two clients gain nothing by batches: one waits while the other is answered.
    target = {1: 0.9, 2: None}.get(clients, 1.0)
    measured = [Row(f"throughput, {who}, against MLflow's server", rate, other, rate / other, target, "at least", "/s")]
    for share in (50, 99):
        value, against = (float(np.percentile(taken[port], share)) for port in (our_port, their_port))
        measured.append(
            Row(f"p{share}, {who}, against MLflow's server", value, against, value / against, None, unit="ms")
        )
    return measured


def _promotion(client: tracking.MlflowClient, port: int, expected: Expected) -> Row:
    """Answers that are lost, or of neither version while the alias moves, or of the old one after that."""
    answers, begin = _ask_all(port, 8), time.monotonic()
    client.set_registered_model_alias(NAME, "champion", "2")
    while _version(port) != "2":
        answers += _ask_all(port, 8)
        if time.monotonic() - begin > PROMOTION_SECONDS:
            raise RuntimeError("the promotion is not picked up")
    after = _ask_all(port, 8)
    wrong = sum(not _is_right(answer, expected, ("1", "2")) for answer in answers)
    wrong += sum(not _is_right(answer, expected, ("2",)) for answer in after)
    title = f"wrong or lost answers, of {len(answers) + len(after)}, while a version takes over"
    return Row(title, wrong, None, wrong, 0, unit="")


def _is_right(answer: Answer, expected: Expected, versions: tuple[str, ...]) -> bool:
    found = answer.probability
    return found is not None and any(abs(expected[one][answer.row] - found) < TOLERANCE for one in versions)


def _ask_all(port: int, clients: int) -> list[Answer]:
    """Ask REQUESTS times; so many clients have one request under way each, on a connection they keep."""
    left, kept = iter(range(REQUESTS)), threading.Lock()

    def client(_: int) -> list[Answer]:
        connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS), list[Answer]()
        while True:
            with kept:
                number = next(left, None)
            if number is None:
                connection.close()
                return found
            found.append(_ask(connection, number % len(ASKED)))

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(client, range(clients)) for answer in answers]


def _ask(connection: http.client.HTTPConnection, row: int) -> Answer:
    body, begin = json.dumps({"dataframe_records": [ASKED[row]]}), time.perf_counter()
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return Answer(time.perf_counter() - begin, row, None)
    seconds = time.perf_counter() - begin
    found = json.loads(text)["predictions"][0]["probability"] if response.status == 200 else None
    return Answer(seconds, row, found)


def _version(port: int) -> str:
    """The version that answers now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    body = json.dumps({"dataframe_records": ASKED[:1]})
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    return connection.getresponse().headers["x-loraloom-version"]


def _registered(folder: Path) -> tuple[tracking.MlflowClient, Expected]:
    """Two versions that answer differently, the first one the champion; and what each has to answer."""
    client, expected = tracking.connect(f"sqlite:///{folder}/mlflow.db"), Expected()
    model = ModelConfig(id=MODEL, quantization="none", dtype="float32", device="cpu", max_length=128)
    write_ensemble(folder / "one", model)
    _soften(folder / "one")
    shutil.copytree(folder / "one", folder / "two")
    description = json.loads((folder / "two" / "ensemble.json").read_text())
    description["weights"] = {**description["weights"], "mood": [0.0, 1.0], "pair": [1.0, 0.0]}
    (folder / "two" / "ensemble.json").write_text(json.dumps(description))
    for name in ("one", "two"):
        run_id = tracking.open_run(client, NAME, name)
        made = register.register_ensemble(client, NAME, run_id, folder / name, adapters={}, metrics={})
        predictor = EnsemblePredictor.load(folder / name, model)
        expected[made.version] = [_alone(predictor, **row) for row in ASKED]
    alike = [abs(one - two) < 10 * TOLERANCE for one, two in zip(*expected.values(), strict=True)]
    if sum(alike) > len(ASKED) // 4:
        raise RuntimeError("the versions answer alike: few answers would tell which one gave them")
    client.set_registered_model_alias(NAME, "champion", "1")
    return client, expected


def _soften(folder: Path) -> None:
    """Make the random adapters small enough for the base to be more than noise: else all probabilities are 0 or 1."""
    for path in folder.glob(f"adapters/*/{WEIGHTS}"):
        tensors = {name: one * 0.1 if ".lora_B." in name else one for name, one in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


def _alone(predictor: EnsemblePredictor, dataset: str, **fields: str) -> float:
    return float(predictor.predict(dataset, {name: [text] for name, text in fields.items()}).max())


@contextmanager
def _serving(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[int]:
    """While open, a server listens on the port that is yielded; its messages go to a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with (folder / f"{port}.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(server, port, folder / f"{port}.log")
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # MLflow's is a shell with the server under it
        server.wait(START_SECONDS)


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/ping")
            connection.getresponse().read()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a server did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)
        finally:
            connection.close()
