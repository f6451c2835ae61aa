"""Several processes that train one adapter together; a process alone is the case of one.

Each takes every size-th row of a batch, and the gradients are averaged: what is stepped along is the gradient of the
whole batch, as if one process had seen it. Averaging is our own, one reduction a step. An adapter's gradients are
small, and DistributedDataParallel would have to wrap the model, while our loss reads hidden states inside it. The
price is that the reduction does not overlap with the backward pass.

The adapter is whole in every process. Where the base is to be shared out (:func:`shard_base`), only its frozen layers
are, so that checkpoints, optimiser and saved adapters are the same with and without.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from peft import PeftModel

Row = tuple[int, int]
WeightedRow = tuple[int, int, float]


def rank() -> int:
    """Which of the processes this is; 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first_on_node() -> bool:
    """Whether this process does what is to be done once on every machine."""
    return not dist.is_initialized() or int(os.environ["LOCAL_RANK"]) == 0


def barrier() -> None:
    """Wait for all processes."""
    if size() > 1:
        dist.barrier()


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A temporary folder of the same name for all processes, which is one folder for those on one machine."""
    with tempfile.TemporaryDirectory(prefix="loraloom-train-") as own:
        name = [own]
        if size() > 1:
            dist.broadcast_object_list(name)
        folder = Path(name[0])
        folder.mkdir(exist_ok=True)
        yield folder
        barrier()  # the folder goes when its owner leaves


def share(batch: Sequence[Row], rank: int, size: int) -> list[WeightedRow]:
    """This process's rows of a batch, each with its weight in the process's loss.

    With ``w = size / len(batch)`` the mean over processes of ``sum_i w l_i`` is the mean of l over the batch, however
    unequal the shares are. A process without a row takes one that weighs nothing: all of them have to take part.
    """
    weight = size / len(batch)
    mine = [(dataset, i, weight) for dataset, i in batch[rank::size]]
    return mine or [(*batch[0], 0.0)]


def leave_unwrapped(model: Any) -> None:
    """Have accelerate take the model as it is; with several processes it would wrap it to average gradients itself."""
    if size() > 1:
        model._is_accelerate_prepared = True


def average_gradients(model: torch.nn.Module) -> None:
    """Replace the gradients of what is trained by their mean over the processes."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def added_up(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The sum over the processes of arrays of one shape."""
    if size() == 1:
        return values
    total = torch.from_numpy(values).to(device)
    dist.all_reduce(total)
    return total.cpu().numpy()


def shard_base(model: PeftModel) -> None:
    """Keep only a share of each of the base's layers here; a layer is put together while it computes (FSDP).

    Packed 4-bit weights are cut as bytes. Embeddings and the output matrix stay whole: label logits read single rows
    of them outside the model's forward pass.
    """
    from torch.distributed.fsdp import fully_shard

    backbone: Any = model.get_base_model().base_model
    layers = _layers(backbone)
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in layers:
        fully_shard(layer, ignored_params=whole)
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    fully_shard(backbone, ignored_params=whole | (set(backbone.parameters()) - inside))


def _layers(backbone: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a transformer: the longest list of modules right inside it."""
    lists = [module for module in backbone.children() if isinstance(module, torch.nn.ModuleList)]
    longest: torch.nn.ModuleList = max(lists, key=len)
    return list(longest)
