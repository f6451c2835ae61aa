"""Calls that come at the same time are answered together: one pass over a batch costs little more than over a row."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class Batcher(Generic[Call, Answer]):
    """A thread that answers calls in batches. It never waits for company: what has queued up meanwhile is the batch.

    Where a batch fails, each of its calls is tried alone, so that a bad one fails by itself.

    Args:
        answer: from a list of calls to their answers, in order.
        size: rows of a call.
        most: rows of a batch; a larger call is a batch of its own.
    """

    def __init__(
        self, answer: Callable[[Sequence[Call]], Sequence[Answer]], size: Callable[[Call], int], most: int
    ) -> None:
        self._answer, self._size, self._most = answer, size, most
        self._waiting: queue.SimpleQueue[tuple[Call, Future[Answer]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="batcher")
        self._thread.start()

    def __call__(self, call: Call) -> Answer:
        """The answer to ``call``; raises what answering it raised."""
        future: Future[Answer] = Future()
        self._waiting.put((call, future))
        return future.result()

    def close(self) -> None:
        """Answer what is queued, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        held: tuple[Call, Future[Answer]] | None = None
        while (first := held or self._waiting.get()) is not None:
            batch, rows, held = [first], self._size(first[0]), None
            while rows < self._most and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                if rows + self._size(following[0]) > self._most:
                    held = following
                    break
                batch.append(following)
                rows += self._size(following[0])
            self._settle(batch)

    def _settle(self, batch: list[tuple[Call, "Future[Answer]"]]) -> None:
        try:
            answers = self._answer([call for call, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to {len(batch)} calls")
        except Exception as error:  # whatever it is, it belongs to the callers
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:
                self._settle([one])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
