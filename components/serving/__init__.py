"""Predicting with an ensemble."""
