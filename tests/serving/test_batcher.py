"""Calls answered together, and what becomes of them where one is bad."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.serving.batcher import Batcher


class Doubler:
    """Doubles numbers; holds its first batch until told to go on, so that others queue up. Negative ones are bad."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, calls: Sequence[int]) -> list[int]:
        self.batches.append(list(calls))
        self.begun.set()
        self.go.wait(10)
        if any(call < 0 for call in calls):
            raise ValueError(f"bad: {min(calls)}")
        return [2 * call for call in calls]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


def ask(doubler: Doubler, calls: list[int], most: int, size=lambda call: 1) -> list[object]:
    """One call that is under way, then all the others at once; their answers or exceptions."""
    batcher: Batcher[int, int] = Batcher(doubler, size, most)
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(batcher, calls[0])]
        assert doubler.begun.wait(10)
        for call in calls[1:]:
            before = batcher._waiting.qsize()
            futures.append(pool.submit(batcher, call))
            while batcher._waiting.qsize() == before:
                pass
        doubler.go.set()
        found = [future.exception() or future.result() for future in futures]
    batcher.close()
    return found


def test_what_queued_up_is_one_batch(doubler: Doubler) -> None:
    assert ask(doubler, [1, 2, 3, 4, 5], most=10) == [2, 4, 6, 8, 10]
    assert doubler.batches == [[1], [2, 3, 4, 5]]


def test_a_batch_has_no_more_rows_than_allowed(doubler: Doubler) -> None:
    assert ask(doubler, [1, 3, 4, 9, 2], most=8, size=lambda call: call) == [2, 6, 8, 18, 4]
    assert doubler.batches == [[1], [3, 4], [9], [2]], "one that is larger by itself goes alone"


def test_a_bad_call_fails_by_itself(doubler: Doubler) -> None:
    found = ask(doubler, [1, 2, -3, 4], most=10)
    assert [found[0], found[1], found[3]] == [2, 4, 8]
    assert isinstance(found[2], ValueError) and str(found[2]) == "bad: -3"
    assert doubler.batches == [[1], [2, -3, 4], [2], [-3], [4]]


def test_what_is_queued_is_answered_before_the_end(doubler: Doubler) -> None:
    batcher: Batcher[int, int] = Batcher(doubler, lambda call: 1, 10)
    doubler.go.set()
    assert batcher(21) == 42
    batcher.close()
    assert not batcher._thread.is_alive()
