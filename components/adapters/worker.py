"""One of several processes that train an adapter together: ``python -m components.adapters.worker TASK``.

Started by ``accelerate launch`` in the step's own pod, or by ``torchrun`` on every machine of a TrainJob. Only the
first process tells of progress, writes checkpoints and delivers the adapter; MLflow is left to the step.
"""

import sys
import tempfile
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.elastic.multiprocessing.errors import record

from components import parallel
from components.adapters.fit_adapter import fit_adapter
from components.adapters.task import Task, deliver, reported
from components.artifacts import load
from components.inputs import read_datasets
from components.on_demand import OnDemand
from components.step import Step


@record  # an exception's text reaches whoever started the processes
def main() -> None:
    """Train the task on the command line."""
    task = Task.parse(sys.argv[1])
    step = Step("train", task.config, task.run_name, part=task.name)  # not entered: the record is the step's own
    with reported(step.store, task):
        on_cpu = step.config.model.device == "cpu" or not torch.cuda.is_available()
        state = PartialState(cpu=on_cpu)  # joins the others: nccl and a GPU for each, or gloo
        prepared, theta = read_datasets(step, task.prepared), load(step.store, task.start)
        with tempfile.TemporaryDirectory(prefix="loraloom-adapter-") as folder:
            facts = fit_adapter(step, OnDemand(step), prepared, theta.folder, task, Path(folder))
            if parallel.rank() == 0:
                deliver(step.store, task, Path(folder), facts)
        state.destroy_process_group()


if __name__ == "__main__":
    main()
