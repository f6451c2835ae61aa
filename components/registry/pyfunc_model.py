"""The registered model, as code: MLflow runs this file when it loads a version, so that nothing is unpickled.

The base model is in the version only where ``registry.bundle_base`` asked for it, else its id, revision and digest.
``LORALOOM_BASE_MODEL`` names a local folder with the same files, for servers without a way to the hub.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from components.errors import UserError


class EnsembleModel(PythonModel):
    """Rows of (dataset, fields of its template) in, label and probability out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load base and adapters. Raises ``UserError`` where the base model is not the one trained on."""
        from components.serving.predict import EnsemblePredictor

        self.predictor = EnsemblePredictor.load(Path(context.artifacts["ensemble"]))

    # No hints on the arguments: with one, MLflow replaces our signature and drops `params`.
    def predict(self, context, model_input, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """Predict a frame of rows of one or several datasets; all rows go through common batches.

        Rows without a dataset are routed to the likeliest of those that take their fields.

        Returns:
            A frame with the input's index and the columns ``label``, ``probability`` and ``dataset``; with the
            parameter ``return_probabilities`` also ``probabilities``, a mapping from label to probability.

        Raises:
            MlflowException: an unknown dataset, a missing field or a bad parameter (INVALID_PARAMETER_VALUE, so a
                server answers 400).
        """
        settings = {"mode": "auto", "batch_tokens": 8192, "return_probabilities": False, **(params or {})}
        try:
            answers = self._answers(model_input, settings)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        answers.index = model_input.index
        return answers if settings["return_probabilities"] else answers.drop(columns="probabilities")

    def _answers(self, frame: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
        from components.serving.predict import Request

        if settings["mode"] not in ("auto", "exact", "merged") or settings["batch_tokens"] < 1:
            raise UserError("params: mode is auto, exact or merged, and batch_tokens at least 1")
        if frame.columns.empty:  # MLflow drops columns outside the signature, and with the last one all rows
            known = sorted({field for name in self.predictor.datasets for field in self.predictor.fields(name)})
            raise UserError(f"no column is known; there are: {', '.join(['dataset', *known])}")
        frame = frame.reset_index(drop=True).assign(dataset=self._datasets(frame))
        index = frame.index.groupby(frame["dataset"])
        requests = [Request(name, _fields(frame.loc[rows])) for name, rows in index.items()]
        found = self.predictor.predict_many(requests, settings["mode"], settings["batch_tokens"])
        columns = ["label", "probability", "dataset", "probabilities"]
        parts = [
            self._told(name, probabilities, rows)
            for (name, rows), probabilities in zip(index.items(), found, strict=True)
        ]
        return pd.concat(parts).sort_index() if parts else pd.DataFrame(columns=columns)

    def _datasets(self, frame: pd.DataFrame) -> list[str]:
        """The dataset of each row. Raises ``UserError`` where a row names none and cannot be routed."""
        from components.serving.routing import settled

        named = frame["dataset"].tolist() if "dataset" in frame else [None] * len(frame)
        rows = frame.drop(columns="dataset", errors="ignore").to_dict("records")
        texts = [{str(name): text for name, text in row.items() if pd.notna(text)} for row in rows]
        datasets = []
        for name in settled(self.predictor, ["" if pd.isna(name) else str(name) for name in named], texts):
            if isinstance(name, UserError):
                raise name
            datasets.append(name)
        return datasets

    def _told(self, dataset: str, probabilities: np.ndarray, rows: pd.Index) -> pd.DataFrame:
        labels = self.predictor.labels(dataset)
        return pd.DataFrame(
            {
                "label": [labels[i] for i in probabilities.argmax(axis=1)],
                "probability": probabilities.max(axis=1).astype(float),
                "dataset": dataset,
                "probabilities": [dict(zip(labels, row, strict=True)) for row in probabilities.astype(float).tolist()],
            },
            index=rows,
        )


def _fields(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns that hold something for these rows."""
    return {name: frame[name].tolist() for name in frame.columns if name != "dataset" and frame[name].notna().any()}


mlflow.models.set_model(EnsembleModel())
