"""Weights of the ensemble, its evaluation, and the report."""
