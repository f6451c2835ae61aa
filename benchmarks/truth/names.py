"""What the tables call things; importing it loads no torch."""

BASES = {
    "float32": {"quantization": "none", "dtype": "float32"},
    "nf4": {"quantization": "nf4", "dtype": "float32"},
    "bfloat16": {"quantization": "none", "dtype": "bfloat16"},
    "nf4+bfloat16": {"quantization": "nf4", "dtype": "bfloat16"},
}

RAW, FROM_START, EACH = "multi-task, raw start", "multi-task", "an adapter each"
BASELINES = (RAW, FROM_START, EACH)
RANDOM = "random groups and multi-task, weighted"
COMPARED = (*BASELINES, RANDOM)
GROUPS, ENSEMBLE = "chosen groups, weighted", "multi-task and chosen groups, weighted"
FULL, FROM_POINT = "from theta*, all epochs", "from the point, one epoch"
