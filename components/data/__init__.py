"""The prepare step: read, validate and split one dataset."""
