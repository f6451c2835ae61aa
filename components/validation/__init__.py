"""Whether the estimates deserve trust: real fine-tunes of some subsets, compared with what was estimated."""
