"""The masked, token-weighted loss: a sum and a count for the gradient, and both for the log."""

from __future__ import annotations

from typing import Any

import torch

from sft_shards.trainer.mcore import compat

Report = dict[str, Any]
"""What is logged: the name of a loss, and its entry as `compat.report` makes it."""
Reduced = tuple[torch.Tensor, torch.Tensor, Report]
"""Sum of losses, number of trained tokens, and the report: what Megatron expects of a loss function."""


def loss_func(
    loss_mask: torch.Tensor,
    losses: torch.Tensor,
    *,
    source: torch.Tensor | None = None,
    sources: tuple[str, ...] = (),
) -> Reduced:
    """Sum the losses of trained tokens.

    With losses 1 2 4 and the mask 0 1 1 the sum is 6 and the number 2.

    Args:
        loss_mask: float32[b, s], 1 where the label carries loss.
        losses: [b, s], cross entropy of each label.
        source: int64[b], the directory of each row; needed with `sources`.
        sources: names of directories to report one by one.

    Returns:
        The sum (float32); the number (int32), by whose total over the global batch Megatron divides with
        --calculate-per-token-loss; and the report with `lm loss`, and `lm loss/NAME` for each source. A mask of zeros
        gives 0 and 0.
    """
    rows = losses.reshape(loss_mask.shape).float() * loss_mask
    total, count = rows.sum(), loss_mask.sum().detach()
    report = {"lm loss": compat.report(total.detach(), count)}
    for number, name in enumerate(sources):
        assert source is not None
        here = (source == number).unsqueeze(1)
        report[f"lm loss/{name}"] = compat.report((rows.detach() * here).sum(), (loss_mask * here).sum())
    return total, count.to(torch.int), report
