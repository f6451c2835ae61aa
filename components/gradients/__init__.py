"""Per-sample gradients of the margin ahead of theta*, projected to a few hundred numbers."""
