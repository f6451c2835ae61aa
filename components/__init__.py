"""What the steps of the pipeline do, one folder a step."""

__version__ = "0.1.0"
