"""What the steps of the pipeline do, one folder a step."""

import logging

__version__ = "0.1.0"

# On some CPUs bitsandbytes warns at its import that a kernel for repacked 4-bit weights is not there. Ours are never
# repacked (`load_base` says why), and just before an error of another kind the warning reads like its cause.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "Failed to load CPU gemm_4bit_forward" not in str(record.msg)
)
