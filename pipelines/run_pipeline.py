"""Runs one pipeline on this machine: ``python -m pipelines.run_pipeline job.json``.

A process of its own, because kfp's local runner wraps ``print`` and replaces log handlers in the process it runs in.
KFP's cache stays off: its key knows neither code nor artifact content. Reuse is by content address in the store.
"""

import json
import sys
from importlib import import_module
from pathlib import Path


def main(job_file: Path) -> None:
    """Run the pipeline that ``job_file`` names as ``module:attribute``; a failed step raises."""
    from kfp import local

    job = json.loads(job_file.read_text(encoding="utf-8"))
    module, _, attribute = job["pipeline"].partition(":")
    pipeline = getattr(import_module(module), attribute)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=job["pipeline_root"], enable_caching=False)
    try:
        pipeline(config=job["config"], run_name=job["run_name"])
    except RuntimeError as error:
        if "Inner task failed" not in str(error):
            raise
        sys.exit(str(error))  # the failed step's own traceback is above; kfp's would push it out of sight


if __name__ == "__main__":
    main(Path(sys.argv[1]))
