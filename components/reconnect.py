"""MLflow for the steps of a run under way, which wait for a server that restarts.

An hour's training may be behind a step, and a restart takes a minute. The first step and the commands do not wait: a
wrong address should show in seconds.
"""

import time

from components import tracking
from components.errors import UserError

PATIENCE, PAUSE = 90.0, 3.0  # seconds that a step waits altogether, and between two looks


def reconnect(uri: str) -> tracking.MlflowClient:
    """As :func:`tracking.connect`, for up to ``PATIENCE`` again and again while a server does not answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return tracking.connect(uri)
        except UserError:
            if not uri.startswith("http") or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)
