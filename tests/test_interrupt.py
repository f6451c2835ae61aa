"""SIGTERM as Ctrl-C, and as it was afterwards."""

import os
import signal
import time

import pytest

from components.interrupt import termination_as_interrupt


def test_termination_interrupts_and_what_was_set_before_comes_back() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
