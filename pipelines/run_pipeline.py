"""Runs one pipeline on this machine: ``python -m pipelines.run_pipeline job.json``.

A process of its own, because kfp's local runner wraps ``print`` and replaces log handlers in the process it runs in.
KFP's cache stays off: its key knows neither code nor artifact content. Reuse is by content address in the store.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.catalogue import graph_of

if TYPE_CHECKING:
    from kfp import local


def main(job_file: Path) -> None:
    """Run the pipeline that ``job_file`` names as ``module:attribute``; a failed step raises."""
    from kfp import local

    job = json.loads(job_file.read_text(encoding="utf-8"))
    pipeline = graph_of(job["pipeline"])
    local.init(_runner(job), pipeline_root=job["pipeline_root"], enable_caching=False)
    try:
        pipeline(config=job["config"], run_name=job["run_name"])
    except RuntimeError as error:
        if "Inner task failed" not in str(error):
            raise
        sys.exit(str(error))  # the failed step's own traceback is above; kfp's would push it out of sight


def _runner(job: dict[str, Any]) -> "local.SubprocessRunner | local.DockerRunner":
    """kfp's runner for the job: each step a process, or a container."""
    from kfp import local

    if job["runner"] == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    from components.config_transport import unpack
    from pipelines import docker_runner

    folder = Path(job["pipeline_root"])
    folder.mkdir(parents=True, exist_ok=True)  # or the engine makes it, as root
    return docker_runner.runner(unpack(job["config"]), folder.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
