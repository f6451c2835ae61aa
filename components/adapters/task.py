"""What travels between the step `train` and the processes that train for it: a task there, an adapter back.

Both go through the store, so that it makes no difference whether the processes run in the same pod or on other
machines. What comes back is whole once ``facts.json`` stands; the step collects it, publishes the artifact as it
would one of its own, and removes it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from components.errors import UserError
from components.object_store import ObjectStore

FACTS, ERROR = "facts.json", "error.json"


@dataclass(frozen=True)
class Task:
    """One adapter to train.

    Attributes:
        config: as it came to the step.
        name: of the group or baseline.
        datasets: names of those it is trained on.
        prepared: store keys of all datasets by name.
        start: store key of theta*.
        seed: of the order of batches and of dropout.
        job: digest of what the adapter is made of; names checkpoints, results and the cluster's object.
    """

    config: str
    run_name: str
    name: str
    datasets: list[str]
    prepared: dict[str, str]
    start: str
    seed: int
    job: str

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From :meth:`dump`'s JSON."""
        return cls(**json.loads(text))

    def key(self, name: str) -> str:
        """Where in the store a file of the result stands."""
        return f"trained/{self.job}/{name}"


def deliver(store: ObjectStore, task: Task, folder: Path, facts: dict[str, Any]) -> None:
    """Put a trained adapter where the step looks for it, the facts last."""
    for path in sorted(folder.iterdir()):
        store.upload(path, task.key(path.name))
    store.write(task.key(FACTS), json.dumps(facts).encode())


def delivered(store: ObjectStore, task: Task) -> bool:
    """Whether the adapter stands in the store, whole."""
    return store.exists(task.key(FACTS))


def collect(store: ObjectStore, task: Task, folder: Path) -> dict[str, Any]:
    """Bring a delivered adapter to ``folder``; its facts. Raises ``KeyError`` where none was delivered."""
    facts: dict[str, Any] = json.loads(store.read(task.key(FACTS)))
    for key in store.keys(task.key("")):
        if not key.endswith(FACTS):
            store.download(key, folder / key.removeprefix(task.key("")))
    return facts


def discard(store: ObjectStore, task: Task) -> None:
    """Remove what was delivered, the facts first."""
    store.delete(task.key(FACTS))
    for key in list(store.keys(task.key(""))):
        store.delete(key)


@contextmanager
def reported(store: ObjectStore, task: Task) -> Iterator[None]:
    """Leave word of a ``UserError`` for the step, which is another process."""
    try:
        yield
    except UserError as error:
        told = {"what": error.what, "remedy": error.remedy, "problems": error.problems}
        store.write(task.key(ERROR), json.dumps(told).encode())
        raise


def forget_report(store: ObjectStore, task: Task) -> None:
    """Remove what an earlier try reported."""
    store.delete(task.key(ERROR))


def raise_reported(store: ObjectStore, task: Task) -> None:
    """Raise the ``UserError`` that a training process reported, if one did, and remove the report."""
    if store.exists(task.key(ERROR)):
        told = json.loads(store.read(task.key(ERROR)))
        forget_report(store, task)
        raise UserError(told["what"], remedy=told["remedy"], problems=tuple(told["problems"]))
