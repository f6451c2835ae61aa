"""What the tables call the ways to answer that others are compared with; importing it loads no torch."""

RAW, FROM_START, EACH = "multi-task, raw start", "multi-task", "an adapter each"
BASELINES = (RAW, FROM_START, EACH)
GROUPS, ENSEMBLE = "chosen groups, weighted", "multi-task and chosen groups, weighted"
FULL, FROM_POINT = "from theta*, all epochs", "from the point, one epoch"
