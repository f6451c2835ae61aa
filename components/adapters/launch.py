"""Train an adapter in several processes on this machine, one a GPU, with ``accelerate launch``."""

import signal
import tempfile

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.utils import patch_environment
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from components.adapters.task import Task, forget_report, raise_reported
from components.errors import UserError
from components.step import Step

WORKER = "components.adapters.worker"


def processes(step: Step, gpus: int) -> int:
    """How many processes are to train here: one a GPU where so many are visible as were asked for, otherwise one."""
    if step.config.model.device == "cpu":
        return 1
    visible = torch.cuda.device_count()
    if visible < gpus:
        step.say(f"resources.train.gpus is {gpus}, but {visible} are visible here: one process trains")
        return 1
    return gpus


def train_in_processes(step: Step, task: Task, processes: int) -> None:
    """Run the task in ``processes`` processes and wait; what they made is in the store afterwards.

    If one of them ends badly the others are stopped.

    Raises:
        UserError: a process met an error of the user's, or was killed.
        RuntimeError: a process failed otherwise; its own words are in the text.
    """
    forget_report(step.store, task)
    with tempfile.TemporaryDirectory(prefix="loraloom-launch-") as scratch, patch_environment(TMPDIR=scratch):
        # All that a user's own accelerate settings could change is set. TMPDIR: killed processes do not tidy up.
        command = (
            f"--multi_gpu --num_processes {processes} --num_machines 1 --machine_rank 0 --main_process_port 0 "
            f"--mixed_precision no --dynamo_backend no --gpu_ids all --log_dir {scratch} --module {WORKER}"
        )
        try:
            launch_command(launch_command_parser().parse_args([*command.split(), task.dump()]))
        except ChildFailedError as error:
            raise_reported(step.store, task)
            rank, failure = _cause(error)
            raise _explained(rank, processes, failure) from error


def _cause(error: ChildFailedError) -> tuple[int, ProcessFailure]:
    """The process that began it: one that was killed, else the first that failed, last those told to stop for it."""

    def standing(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, int]:
        code = item[1].exitcode
        return code == -signal.SIGTERM, code > 0, item[1].timestamp

    return min(error.failures.items(), key=standing)


def _explained(rank: int, processes: int, failure: ProcessFailure) -> Exception:
    who = f"training process {rank + 1} of {processes}"
    if failure.exitcode < 0:
        return UserError(
            f"{who} was killed by {signal.Signals(-failure.exitcode).name}",
            remedy="most often memory ran out: lower training.batch_size, turn training.gradient_checkpointing on or "
            "give resources.train more memory. The same run goes on from its last checkpoint",
        )
    words = failure.message["message"] if isinstance(failure.message, dict) else failure.message
    return RuntimeError(f"{who} ended with exit code {failure.exitcode}: {words}")
