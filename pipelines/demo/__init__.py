"""The embedded default: a small base model, generated datasets and one config."""
