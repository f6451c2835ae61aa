"""Memory that runs out: told from other errors, and met by doing a batch in parts."""

from collections.abc import Callable, Mapping

import torch

from components.errors import UserError

HOST_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")  # torch's allocators on Windows and elsewhere

Rows = Mapping[str, torch.Tensor]  # tensors with one entry a row


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's is torch.OutOfMemoryError, a host's only its message tells."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in HOST_OUT_OF_MEMORY)


class Parts:
    """Does the batches of a job whole while memory holds them, in two parts from where it does not, in four...

    The results are added up, so ``work`` has to be a sum over rows (a loss, and the gradients it leaves): in parts it
    is the same up to rounding and to what dropout draws.

    Args:
        say: told when the number of parts grows.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.count, self._say = 1, say

    def sum(
        self, rows: Rows, work: Callable[[dict[str, torch.Tensor]], torch.Tensor], forget: Callable[[], None]
    ) -> torch.Tensor:
        """The sum of ``work`` over the parts of ``rows``; ``forget`` undoes what a pass that failed has left.

        Raises:
            UserError: memory does not hold a single row.
        """
        length = len(next(iter(rows.values())))
        while True:
            index = torch.arange(length).tensor_split(min(self.count, length))
            try:
                return torch.stack(
                    [work({name: values[part] for name, values in rows.items()}) for part in index]
                ).sum()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.count >= length:
                    raise UserError(
                        "memory does not hold the training of one row",
                        remedy="lower model.max_length or lora.rank, set training.gradient_checkpointing, or give the "
                        "step a machine with more memory",
                    ) from error
            forget()
            self.count *= 2
            self._say(f"out of memory at {length} rows: batches are done in {self.count} parts from here on")
