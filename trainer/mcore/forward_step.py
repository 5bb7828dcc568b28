"""The forward step: one micro-batch from the data set through the model.

Every rank reads its own batch. Items are pure functions of their number, so the tensor and pipeline ranks of one
data-parallel rank read the same batch, and nothing is broadcast. Megatron does not shift labels; they and the mask come
shifted from `sft_shards.trainer.data.shards`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sft_shards.trainer.isolation.segments import find_segments
from sft_shards.trainer.mcore.core_attention import packed_seq_params
from sft_shards.trainer.mcore.loss import Reduced, loss_func
from sft_shards.trainer.mcore.trained_logits import Selection, selecting, trained_positions


@dataclass(frozen=True, kw_only=True)
class ForwardStep:
    """Runs one micro-batch through this rank's part of the model; Megatron's schedules call it."""

    packed: bool
    """Whether a row holds several conversations, which attention must be told."""
    loss_chunk: int | None = None
    """Trained positions whose logits are held at a time; None: logits of all positions are computed and held."""
    sources: tuple[str, ...] = ()
    """Names of the directories whose loss an evaluation reports one by one; empty: only the loss over all."""

    def get_batch(self, data_iterator: Iterator[dict[str, torch.Tensor]]) -> dict[str, Any]:
        """Return the next micro-batch, on this rank's device.

        Returns:
            `tokens`, `labels`, `position_ids` int64[b, s]; int64[1, b x s] where rows are packed, which are then laid
            one behind the other. `loss_mask` float32[b, s] and `source` int64[b]. `packed_seq_params`, or None where
            attention is causal and padding follows the only conversation, so no trained position sees it. `trained`
            int64[n], see `trained_positions`.
        """
        batch = next(data_iterator)
        packed = packed_seq_params(find_segments(batch["position_ids"], "cuda")) if self.packed else None
        moved: dict[str, Any] = {name: value.cuda(non_blocking=True) for name, value in batch.items()}
        for name in ("tokens", "labels", "position_ids"):
            moved[name] = moved[name].long().reshape(1 if self.packed else len(moved[name]), -1)
        moved["loss_mask"] = moved["loss_mask"].float()
        moved["packed_seq_params"] = packed
        moved["trained"] = trained_positions(batch["loss_mask"]).cuda(non_blocking=True)
        return moved

    def _selecting(self, positions: torch.Tensor) -> contextlib.AbstractContextManager[None]:
        if self.loss_chunk is None:
            return contextlib.nullcontext()
        return selecting(Selection(positions=positions, chunk=self.loss_chunk))

    def __call__(
        self, data_iterator: Iterator[dict[str, torch.Tensor]], model: Any
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Reduced]]:
        """Return the losses of a micro-batch (on the last pipeline stage), and the function that sums them."""
        batch = self.get_batch(data_iterator)
        packed = {} if batch["packed_seq_params"] is None else {"packed_seq_params": batch["packed_seq_params"]}
        with self._selecting(batch["trained"]):
            output = model(
                batch["tokens"],
                batch["position_ids"],
                None,  # attention is causal
                labels=batch["labels"],
                loss_mask=batch["loss_mask"].reshape(batch["labels"].shape),
                **packed,
            )
        sources = self.sources if not model.training else ()
        return output, partial(loss_func, batch["loss_mask"], source=batch["source"], sources=sources)
