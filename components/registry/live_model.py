"""The version that an alias names, re-read while it serves.

MLflow's scoring server asks a model for two things, ``metadata`` and ``predict``. This one passes both on to whatever
version the alias names now. A new version is loaded beside the old one and takes over between two batches: calls that
are under way end on the version they began with, and none is dropped. For the time of loading there are two base
models in memory.
"""

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from components.artifacts import canonical
from components.registry.register import version_number
from components.serving.batcher import Batcher
from components.serving.metrics import ServingMetrics
from components.tracking import MlflowClient

MOST_ROWS = 256  # in one batch
# Where `predict` puts the number of the version that answered: a server that wants to tell it sets an empty list.
answered_by: ContextVar[list[str] | None] = ContextVar("answered_by", default=None)


@dataclass(frozen=True)
class _Version:
    number: str
    model: Any
    datasets: list[str]


@dataclass(frozen=True)
class _Call:
    frame: pd.DataFrame
    params: dict[str, Any] | None


class LiveModel:
    """A pyfunc model that follows an alias, and answers concurrent calls in common batches.

    Raises:
        UserError: no version has the alias.
    """

    def __init__(self, client: MlflowClient, name: str, alias: str, metrics: ServingMetrics) -> None:
        self._client, self.name, self.alias, self.metrics = client, name, alias, metrics
        self._changing = threading.Lock()
        self._current = self._load(self._number())
        self.metrics.version.set(float(self._current.number))
        self._batcher: Batcher[_Call, tuple[pd.DataFrame, str]] = Batcher(
            self._answer, lambda call: len(call.frame), MOST_ROWS
        )

    @property
    def version(self) -> str:
        """The number of the version that serves."""
        return self._current.number

    @property
    def metadata(self) -> Any:
        """MLflow's description of the version that serves."""
        return self._current.model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer a frame of rows.

        Raises:
            MlflowException: the rows cannot be answered (a 4xx), by the rules of the registered model.
        """
        if not isinstance(data, pd.DataFrame):
            raise MlflowException.invalid_parameter_value("rows are expected: dataframe_split or dataframe_records")
        try:
            answers, version = self._batcher(_Call(data.reset_index(drop=True), params))
        except Exception:
            named = data["dataset"].tolist() if "dataset" in data else [None] * len(data)
            self.metrics.refused(named, self._current.datasets)
            raise
        self.metrics.answered(answers["dataset"].tolist())
        told = answered_by.get()
        if told is not None:
            told.append(version)
        return answers

    def refresh(self) -> bool:
        """Look whether the alias has moved, and follow it. True where a new version took over."""
        with self._changing:
            number = self._number()
            if number == self._current.number:
                return False
            self._current = self._load(number)
            self.metrics.version.set(float(number))
            return True

    def close(self) -> None:
        """Answer what is queued, then end."""
        self._batcher.close()

    def _number(self) -> str:
        return version_number(self._client, self.name, self.alias)

    def _load(self, number: str) -> _Version:
        mlflow.set_tracking_uri(self._client.tracking_uri)
        model = mlflow.pyfunc.load_model(f"models:/{self.name}/{number}")
        return _Version(number, model, model.unwrap_python_model().predictor.datasets)

    def _answer(self, calls: Sequence[_Call]) -> list[tuple[pd.DataFrame, str]]:
        """Calls with the same parameters go through the model together; each answer comes with the version's number."""
        current, answers = self._current, dict[int, pd.DataFrame]()
        alike: dict[str, list[int]] = {}
        for i, call in enumerate(calls):
            alike.setdefault(canonical(call.params or {}), []).append(i)
        for places in alike.values():
            frame = pd.concat([calls[i].frame for i in places], ignore_index=True)
            found = current.model.predict(frame, params=calls[places[0]].params)
            self.metrics.batch.observe(len(frame))
            start = 0
            for i in places:
                answers[i] = found.iloc[start : start + len(calls[i].frame)].reset_index(drop=True)
                start += len(calls[i].frame)
        return [(answers[i], current.number) for i in range(len(calls))]
