"""The registered model, as code: MLflow runs this file when it loads a version, so that nothing is unpickled.

The base model is not in the version, only its id, revision and digest. ``LORALOOM_BASE_MODEL`` names a local folder
with the same files, for servers without a way to the hub.
"""

import os
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from components.errors import UserError

BASE_MODEL = "LORALOOM_BASE_MODEL"


class EnsembleModel(PythonModel):
    """Rows of (dataset, fields of its template) in, label and probability out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load base and adapters. Raises ``UserError`` where the base model is not the one trained on."""
        from components.serving.predict import EnsemblePredictor, base_config

        folder = Path(context.artifacts["ensemble"])
        model = None
        if local := os.environ.get(BASE_MODEL):
            import json

            description = json.loads((folder / "ensemble.json").read_text())
            model = base_config(description).model_copy(update={"id": local, "revision": None})
        self.predictor = EnsemblePredictor.load(folder, model)

    # No hints on the arguments: with one, MLflow replaces our signature and drops `params`.
    def predict(self, context, model_input, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """Predict a frame of rows of one or several datasets.

        Returns:
            A frame with the input's index and the columns ``label`` and ``probability``; with the parameter
            ``return_probabilities`` also ``probabilities``, a mapping from label to probability.

        Raises:
            MlflowException: an unknown dataset or a missing field (INVALID_PARAMETER_VALUE, so a server answers 400).
        """
        try:
            parts = [self._one(name, rows) for name, rows in model_input.groupby("dataset", sort=False, dropna=False)]
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        columns = ["label", "probability", "probabilities"]
        answers = pd.concat(parts).loc[model_input.index] if parts else pd.DataFrame(columns=columns)
        return answers if (params or {}).get("return_probabilities") else answers.drop(columns="probabilities")

    def _one(self, dataset, rows):  # type: ignore[no-untyped-def]
        fields = {name: rows[name].tolist() for name in rows.columns if name != "dataset" and rows[name].notna().any()}
        probabilities = self.predictor.predict(dataset, fields)
        labels = self.predictor.labels(dataset)
        best = probabilities.argmax(axis=1)
        return pd.DataFrame(
            {
                "label": [labels[i] for i in best],
                "probability": probabilities.max(axis=1).astype(float),
                "probabilities": [dict(zip(labels, row, strict=True)) for row in probabilities.astype(float).tolist()],
            },
            index=rows.index,
        )


mlflow.models.set_model(EnsembleModel())
