"""Per-sample gradients of the margin at theta*, projected to a few hundred numbers."""
