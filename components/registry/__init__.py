"""Registering an ensemble, deciding whether it becomes the champion, and walking back from a version."""

import components.tracking  # noqa: F401  before mlflow is first imported: it switches the telemetry off
