"""The forward step: a batch as the data set made it, and the masked, token-weighted loss.

Every rank reads its own batch: items are pure functions of their number, so the tensor and pipeline ranks of one
data-parallel rank read the same thing, and nothing is broadcast. Megatron never shifts: labels and mask come
shifted from `sft_shards.trainer.data.samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sft_shards.trainer.isolation.choose import block_mask, packed_seq_params
from sft_shards.trainer.mcore import compat

Report = dict[str, Any]
Reduced = tuple[torch.Tensor, torch.Tensor, Report]


@dataclass(frozen=True, kw_only=True)
class ForwardStep:
    """One micro-batch through this rank's part of the model, as Megatron's schedules call it."""

    isolation: str
    """`thd`, `mask` or `single`, see `sft_shards.trainer.isolation.choose`."""
    sources: tuple[str, ...] = ()
    """Names of the directories whose loss is reported by itself in an evaluation; none: only the whole."""

    def get_batch(self, data_iterator: Iterator[dict[str, torch.Tensor]]) -> dict[str, Any]:
        """The next micro-batch on this rank's device.

        Returns:
            `tokens`, `labels`, `position_ids` int64[b, s], `loss_mask` float32[b, s] and `source` int64[b];
            `attention_mask` bool[b, 1, s, s] (True: not seen) or None; `packed_seq_params` or None. Where both are
            None attention is causal, and padding stands after the conversation, where nothing trained sees it.
        """
        batch = next(data_iterator)
        packed = packed_seq_params(batch["position_ids"]) if self.isolation == "thd" else None
        moved: dict[str, Any] = {name: value.cuda(non_blocking=True) for name, value in batch.items()}
        for name in ("tokens", "labels", "position_ids"):
            moved[name] = moved[name].long()
        moved["loss_mask"] = moved["loss_mask"].float()
        moved["attention_mask"] = block_mask(moved["position_ids"]) if self.isolation == "mask" else None
        moved["packed_seq_params"] = packed
        return moved

    def __call__(
        self, data_iterator: Iterator[dict[str, torch.Tensor]], model: Any
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Reduced]]:
        """Losses of a micro-batch (on the last pipeline stage), and the function that sums them."""
        batch = self.get_batch(data_iterator)
        packed = {} if batch["packed_seq_params"] is None else {"packed_seq_params": batch["packed_seq_params"]}
        output = model(
            batch["tokens"],
            batch["position_ids"],
            batch["attention_mask"],
            labels=batch["labels"],
            loss_mask=batch["loss_mask"],
            **packed,
        )
        sources = self.sources if not model.training else ()
        return output, partial(loss_func, batch["loss_mask"], source=batch["source"], sources=sources)


def loss_func(
    loss_mask: torch.Tensor,
    losses: torch.Tensor,
    *,
    source: torch.Tensor | None = None,
    sources: tuple[str, ...] = (),
) -> Reduced:
    """Sum of the losses of trained tokens, their number, and both for the log.

    Args:
        loss_mask: float32[b, s], 1 where the label carries loss.
        losses: [b, s], cross entropy of each label.
        source: int64[b], the directory of each row; needed with `sources`.
        sources: names of directories to report one by one.

    Returns:
        The sum (float32), the number (int32; Megatron divides by its sum over the global batch with
        --calculate-per-token-loss), and what is logged, sum over number: `lm loss`, and `lm loss/NAME` per source.
        A mask of zeros gives 0, 0.
    """
    rows = losses.reshape(loss_mask.shape).float() * loss_mask
    total, count = rows.sum(), loss_mask.sum().detach()
    report = {"lm loss": compat.report(total.detach(), count)}
    for number, name in enumerate(sources):
        assert source is not None
        here = (source == number).unsqueeze(1)
        report[f"lm loss/{name}"] = compat.report((rows.detach() * here).sum(), (loss_mask * here).sum())
    return total, count.to(torch.int), report
