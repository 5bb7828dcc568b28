"""The forward step: a batch as the data set made it, and the masked, token-weighted loss.

Every rank reads its own batch: items are pure functions of their number, so the tensor and pipeline ranks of one
data-parallel rank read the same thing, and nothing is broadcast. Megatron never shifts: labels and mask come
shifted from `trainer.data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

Reduced = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def get_batch(data_iterator: Iterator[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The next micro-batch on this rank's device.

    Returns:
        `tokens`, `labels`, `position_ids` int64[b, s] and `loss_mask` float32[b, s]; positions start at 0 in
        every row. There is no attention mask: attention is causal, and padding stands after the conversation,
        where no trained position can see it.
    """
    batch = {name: value.cuda(non_blocking=True) for name, value in next(data_iterator).items()}
    tokens = batch["tokens"]
    positions = torch.arange(tokens.shape[1], dtype=torch.int64, device=tokens.device)
    batch["position_ids"] = positions.unsqueeze(0).expand_as(tokens)
    return batch


def loss_func(loss_mask: torch.Tensor, losses: torch.Tensor) -> Reduced:
    """Sum of the losses of trained tokens, their number, and both for the log.

    Args:
        loss_mask: float32[b, s], 1 where the label carries loss.
        losses: [b, s], cross entropy of each label.

    Returns:
        The sum (float32), the number (int32; Megatron divides by its sum over the global batch with
        --calculate-per-token-loss), and `{"lm loss": float32[2]}`, of which Megatron logs sum over number.
        A mask of zeros gives 0, 0.
    """
    mask = loss_mask.reshape(-1)
    total = torch.sum(losses.reshape(-1).float() * mask)
    count = mask.sum().detach().to(torch.int)
    report = torch.cat([total.detach().reshape(1), count.to(torch.float32).reshape(1)])
    return total, count, {"lm loss": report}


def forward_step(
    data_iterator: Iterator[dict[str, torch.Tensor]], model: Callable[..., torch.Tensor]
) -> tuple[torch.Tensor, Callable[[torch.Tensor], Reduced]]:
    """One micro-batch through this rank's part of the model, as Megatron's schedules call it."""
    batch = get_batch(data_iterator)
    output = model(
        batch["tokens"],
        batch["position_ids"],
        None,
        labels=batch["labels"],
        loss_mask=batch["loss_mask"],
    )
    return output, partial(loss_func, batch["loss_mask"])
