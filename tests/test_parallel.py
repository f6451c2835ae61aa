"""What several processes agree on, with two real ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components import parallel
from components.examples import collate
from components.language_model import answer_logits, margins
from tests.conftest import adapted, nf4, random_examples
from tests.small_models import write_llama

BATCH = [(0, 4), (1, 2), (0, 1), (1, 7), (0, 0)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_shares_weigh_up_to_the_mean_of_the_batch(size: int) -> None:
    shares = [parallel.share(BATCH, rank, size) for rank in range(size)]
    assert all(shares)  # nobody stays away
    counted = [(dataset, i) for rows in shares for dataset, i, weight in rows if weight]
    assert sorted(counted) == sorted(BATCH)
    loss = {row: float(k + 1) for k, row in enumerate(BATCH)}
    means = [sum(weight * loss[dataset, i] for dataset, i, weight in rows) for rows in shares]
    assert np.mean(means) == pytest.approx(np.mean(list(loss.values())))


def test_a_process_alone_agrees_with_itself() -> None:
    values = np.arange(3.0)
    assert parallel.added_up(values, torch.device("cpu")) is values
    assert (parallel.rank(), parallel.size(), parallel.first_on_node()) == (0, 1, True)
    with parallel.shared_folder() as folder:
        (folder / "file").touch()
    assert not folder.exists()


def in_each_of_two(folder: Path) -> None:
    """Run by two processes: gradients of a batch, shared, averaged, over a whole and over a sharded base."""
    torch.distributed.init_process_group("gloo")
    rank = parallel.rank()
    base, model = adapted(nf4(folder / "base"))
    examples = random_examples([5, 9, 4, 12, 7])

    def gradients(rows: list[parallel.WeightedRow]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        batch = collate([(examples, i) for _, i, _ in rows])
        weight = torch.tensor([weight for _, _, weight in rows])
        (weight * margins(answer_logits(model, batch), batch.label)).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def averaged() -> dict[str, torch.Tensor]:
        gradients(mine)
        parallel.average_gradients(model)
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def held() -> int:
        layers = model.get_base_model().model.layers
        parts = [getattr(p, "to_local", lambda p=p: p)() for p in layers.parameters() if not p.requires_grad]
        return sum(part.numel() * part.element_size() for part in parts)

    mine = parallel.share([(0, i) for i in range(5)], rank, 2)
    found = {"whole": gradients([(0, i, 1 / 5) for i in range(5)]), "shared": averaged(), "bytes": held()}
    parallel.shard_base(model)
    found |= {"sharded": averaged(), "sharded bytes": held()}
    found["sum"] = parallel.added_up(np.array([1.0, rank]), base.device).tolist()
    with parallel.shared_folder() as shared:
        (shared / str(rank)).touch()
        parallel.barrier()
        found["files"] = sorted(path.name for path in shared.iterdir())
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Also where each holds only half of the base's layers, in four bits."""
    write_llama(tmp_path / "base", 64)
    call = "import sys, pathlib, tests.test_parallel as t; t.in_each_of_two(pathlib.Path(sys.argv[1]))"
    (tmp_path / "two.py").write_text(call)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*command, str(tmp_path / "two.py"), str(tmp_path)], env=environment, check=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, expected in first["whole"].items():
        for found in (first["shared"], second["shared"], first["sharded"], second["sharded"]):
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
    assert first["sharded bytes"] == second["sharded bytes"] == first["bytes"] / 2
    assert first["sum"] == second["sum"] == [2.0, 1.0]
    assert first["files"] == second["files"] == ["0", "1"]
