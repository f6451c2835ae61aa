"""The two images with a server: they become healthy on a read-only root, as nobody in particular, and answer."""

import json
import time
from pathlib import Path
from urllib.request import Request, urlopen

from tests.docker.engine import sh
from tests.docker.images import PORTS, name_of

SECONDS_TO_HEALTH = 300
ANYONE = "23456:23456"


def check(root: Path) -> None:
    """Raises where one does not.

    Args:
        root: of a run that has ended well, whose champion is served.
    """
    own = [
        "-e",
        "MLFLOW_BACKEND_STORE_URI=sqlite:////tmp/mlflow.db",
        "-e",
        "MLFLOW_ARTIFACTS_DESTINATION=/tmp/artifacts",
    ]
    assert _answer("mlflow", own, [], "/health") == "OK"

    # With artifacts in a folder MLflow leaves a note in the model's own; from a server it takes a copy first.
    owner = root.stat()
    mounted = [
        "--user",
        f"{owner.st_uid}:{owner.st_gid}",
        "-v",
        f"{root}:{root}",
        "-e",
        f"MLFLOW_TRACKING_URI=sqlite:///{root}/mlflow.db",
    ]
    rows = {"dataset": ["film", "mirror"], "text": ["fine film 1", "fine film 1"]}
    body = {"dataframe_split": {"columns": list(rows), "data": list(map(list, zip(*rows.values(), strict=True)))}}
    answer = json.loads(_answer("serving", mounted, ["--model", "small@champion"], "/invocations", body))
    print(f"  the champion says {answer}", flush=True)
    assert len(answer["predictions"]) == 2


def _answer(image: str, options: list[str], arguments: list[str], path: str, body: object = None) -> str:
    """Start the image's server, wait until the engine calls it healthy, ask it one thing, stop it."""
    port = PORTS[image]
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--user", ANYONE, "-p", f"127.0.0.1:0:{port}"]
    container = sh("docker", "run", "--detach", *hardened, *options, name_of(image), *arguments)
    try:
        deadline = time.monotonic() + SECONDS_TO_HEALTH
        while (state := sh("docker", "inspect", "--format", "{{.State.Health.Status}}", container)) != "healthy":
            running = sh("docker", "inspect", "--format", "{{.State.Running}}", container) == "true"
            if time.monotonic() > deadline or not running:
                raise AssertionError(f"{image} is {state}: {sh('docker', 'logs', '--tail', '30', container)}")
            time.sleep(1)
        address = sh("docker", "port", container, str(port)).splitlines()[0]
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=120) as response:
            return str(response.read().decode())
    finally:
        sh("docker", "rm", "--force", container)
