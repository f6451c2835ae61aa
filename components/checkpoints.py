"""Copies of a training job's newest checkpoint in the store, by which a job that was killed goes on where it was.

Checkpoints hold the optimiser as torch writes it, are read with ``weights_only`` and disappear with the finished job.
Of several processes only the first one writes to the store; each machine reads.
"""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from components import parallel
from components.inside import inside
from components.object_store import ObjectStore


class Checkpoints(TrainerCallback):
    """The checkpoints of one job; the name of the newest one and of all files is written last, a line each.

    Args:
        folder: where the Trainer writes them; all processes on a machine share it.
    """

    def __init__(self, store: ObjectStore, job: str, folder: Path) -> None:
        self.store, self.prefix, self.folder = store, f"checkpoints/{job}", folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy what the Trainer has just saved, and forget what it has forgotten."""
        if control.should_training_stop:
            return  # the trainer cannot go on from an end: whoever is killed now repeats the last epoch
        parallel.barrier()  # every process has a file of its own in a checkpoint
        if parallel.rank() == 0:
            self._upload(f"checkpoint-{state.global_step}")
        parallel.barrier()

    def _upload(self, newest: str) -> None:
        before = list(self.store.keys(f"{self.prefix}/"))
        paths = [path for path in sorted(self.folder.glob("checkpoint-*/**/*")) if path.is_file()]
        # The trainer keeps the newest and the best one; going on needs both.
        names = {f"{self.prefix}/{path.relative_to(self.folder).as_posix()}": path for path in paths}
        for key, path in names.items():
            self.store.upload(path, key)
        files = [key.removeprefix(f"{self.prefix}/") for key in names]
        self.store.write(f"{self.prefix}/newest", "\n".join([newest, *files]).encode())
        for key in before:
            if key not in names and not key.endswith("/newest"):
                self.store.delete(key)

    def restore(self) -> str | None:
        """Bring the checkpoints back; the folder of the newest, or None where there is none that is whole.

        A run of the same job that has just finished clears them away, whoever else is at it.
        """
        try:
            name, *files = self.store.read(f"{self.prefix}/newest").decode().splitlines()
        except KeyError:
            return None
        newest = inside(self.folder, name)
        if parallel.first_on_node():
            try:
                for file in files:
                    self.store.download(f"{self.prefix}/{file}", inside(self.folder, file))
            except KeyError:
                self._forget_here()
        parallel.barrier()
        return str(newest) if newest.is_dir() else None

    def clear(self) -> None:
        """Forget the checkpoints, here and in the store: the job is done."""
        parallel.barrier()  # nobody reads any more
        if parallel.rank() == 0:
            self.store.delete(f"{self.prefix}/newest")  # first: what it names is no longer whole
            for key in list(self.store.keys(f"{self.prefix}/")):
                self.store.delete(key)
        if parallel.first_on_node():
            self._forget_here()

    def _forget_here(self) -> None:
        for path in self.folder.glob("checkpoint-*"):
            # Machines that share their temporary folder all come here; whatever stays goes with the folder.
            shutil.rmtree(path, ignore_errors=True)
