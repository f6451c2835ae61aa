"""Numbers that are not finite are refused where they arise, with the rows of the batch that brought them."""

import numpy as np
import torch

from components.errors import UserError

SHOWN = 5  # rows in a message


def check_logits(row: np.ndarray, logits: np.ndarray) -> None:
    """Refuse logits [B, C] of the rows with ids [B] that are not finite."""
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise UserError(
            f"logits are not finite for {int(bad.sum())} rows: {', '.join(map(str, row[bad][:SHOWN]))}",
            remedy="use model.dtype: float32, or look for damaged weights",
        )


def check_losses(losses: torch.Tensor, row: torch.Tensor, learning_rate_setting: str) -> None:
    """Refuse losses [B] of the rows with ids [B] that are not finite; the setting is what to lower."""
    bad = ~torch.isfinite(losses)
    if bad.any():
        raise UserError(
            "training diverged: the loss is not finite",
            remedy=f"lower {learning_rate_setting}",
            problems=(
                f"{int(bad.sum())} of the batch's {len(row)} rows: {', '.join(map(str, row[bad][:SHOWN].tolist()))}",
            ),
        )
