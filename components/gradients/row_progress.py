"""How far a step is, in rows that go through the model."""

from components.step import Step


class RowProgress:
    """Tells a step's progress in rows: stretch by stretch, and batch by batch within one.

    Rows that are known already are in no batch. They are behind us when the next stretch begins.
    """

    def __init__(self, step: Step, total: int) -> None:
        self._step, self._total = step, total
        self._done = self._end = 0
        self._note = ""

    def begin(self, rows: int, note: str) -> None:
        """A stretch of so many rows begins; what came before it is done."""
        self._done, self._note = self._end, note
        self._end += rows
        self.passed(0)

    def passed(self, rows: int) -> None:
        """So many rows of the stretch have gone through the model."""
        self._done += rows
        self._step.progress(self._done, self._total, self._note)
