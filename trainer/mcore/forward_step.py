"""The forward step: one micro-batch from the data set through the model.

Every rank reads its own batch. Items are pure functions of their number, so the tensor, pipeline and context ranks of
one data-parallel rank read the same batch, and nothing is broadcast; a context rank keeps its share of the positions.
Megatron does not shift labels; they and the mask come shifted from `sft_shards.trainer.data.shards`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state

from sft_shards.trainer.isolation.context_shares import ContextShares, context_shares
from sft_shards.trainer.isolation.segments import Segments, find_segments
from sft_shards.trainer.mcore.core_attention import packed_seq_params
from sft_shards.trainer.mcore.loss import Reduced, loss_func
from sft_shards.trainer.mcore.trained_logits import Selection, selecting, trained_positions
from sft_shards.trainer.mcore.training_log import Meter


@dataclass(frozen=True, kw_only=True)
class ForwardStep:
    """Runs one micro-batch through this rank's part of the model; Megatron's schedules call it."""

    packed: bool
    """Whether a row holds several conversations, which attention must be told."""
    context: int = 1
    """Context-parallel ranks, each of which computes a share of every row."""
    loss_chunk: int | None = None
    """Trained positions whose logits are held at a time; None: logits of all positions are computed and held."""
    meter: Meter = field(default_factory=Meter)
    """Counts what is trained."""
    sources: tuple[str, ...] = ()
    """Names of the directories whose loss an evaluation reports one by one; empty: only the loss over all."""

    def get_batch(self, data_iterator: Iterator[dict[str, torch.Tensor]]) -> dict[str, Any]:
        """Return the next micro-batch, on this rank's device.

        Returns:
            `tokens`, `labels`, `position_ids` int64[b, s]; int64[1, b x s] where rows are packed, which are then laid
            one behind the other. `loss_mask` float32[b, s] and `source` int64[b]. `packed_seq_params`, or None where
            attention is causal and padding follows the only conversation, so no trained position sees it. `trained`
            int64[n], see `trained_positions`; `trained_tokens` is their number (if 0, position 0 stands
            for them). With context parallelism s are the positions of this rank's share.
        """
        batch = next(data_iterator)
        segments = find_segments(batch["position_ids"], "cuda") if self.packed else None
        shares = None
        if self.context > 1:
            batch, shares = self._shared(batch, segments)
        packed = packed_seq_params(segments, shares) if segments is not None else None
        moved: dict[str, Any] = {name: value.cuda(non_blocking=True) for name, value in batch.items()}
        for name in ("tokens", "labels", "position_ids"):
            moved[name] = moved[name].long().reshape(1 if self.packed else len(moved[name]), -1)
        moved["loss_mask"] = moved["loss_mask"].float()
        moved["packed_seq_params"] = packed
        moved["trained_tokens"] = int(batch["loss_mask"].sum())
        moved["trained"] = trained_positions(batch["loss_mask"]).cuda(non_blocking=True)
        return moved

    def _shared(
        self, batch: dict[str, torch.Tensor], segments: Segments | None
    ) -> tuple[dict[str, torch.Tensor], ContextShares]:
        """Return this context rank's share of a micro-batch, and the shares of all.

        Args:
            batch: on the CPU, as the data set gives it.
            segments: of the rows, one behind the other; None: each row is one.
        """
        rows, size = batch["tokens"].shape
        if segments is None:
            segments = Segments(bounds=None, lengths=(size,) * rows)
        rank = parallel_state.get_context_parallel_rank()
        shares = context_shares(segments, ranks=self.context, rank=rank, device="cuda")
        mine = {name: value.flatten()[shares.mine].view(rows, -1) for name, value in batch.items() if value.dim() > 1}
        return {**batch, **mine}, shares

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
        if model.training:
            self.meter.trained += batch["trained_tokens"]
        return output, partial(loss_func, batch["loss_mask"], source=batch["source"], sources=sources)
