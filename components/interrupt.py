"""Being told to stop, whichever way, met in one place."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which ends a pod and a service, like Ctrl-C: whoever leaves can tidy up. Main thread only."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
