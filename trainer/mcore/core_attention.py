"""The attention inside of Megatron's own layers: packed conversations apart, and no matrix of all scores.

Megatron's `DotProductAttention` takes no `PackedSeqParams` and keeps scores of every position with every other. Ours
takes its place in the layers that are built without Transformer Engine, and calls one of `isolation.kernels`. With
context parallelism it exchanges positions for heads first (`head_exchange`).
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule

from sft_shards.trainer.isolation.context_shares import ContextShares, context_shares
from sft_shards.trainer.isolation.kernels import Options, load
from sft_shards.trainer.isolation.segments import Segments
from sft_shards.trainer.mcore.head_exchange import repeats, to_heads, to_positions


@dataclass
class SegmentedSeqParams(PackedSeqParams):  # type: ignore[misc]
    """Megatron's description of a packed row, with the lengths of its segments on the host."""

    segments: Segments | None = None
    shares: ContextShares | None = None


def packed_seq_params(segments: Segments, shares: ContextShares | None = None) -> SegmentedSeqParams:
    """Return what Megatron's attention and rotary positions are told of a packed row.

    All numbers are those of the whole row, whatever part of it a context-parallel rank has. A gap behind a conversation
    counts as part of its segment, which changes nothing for the positions before it: some kernels take no padding
    between segments.

    Args:
        shares: of the row; None: there is no context parallelism.
    """
    longest = max(segments.lengths)
    padded = {} if shares is None else {f"cu_seqlens_{name}_padded": segments.bounds for name in ("q", "kv")}
    return SegmentedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=segments.bounds,
        cu_seqlens_kv=segments.bounds,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        segments=segments,
        shares=shares,
        **padded,
    )


class CoreAttention(MegatronModule):  # type: ignore[misc]
    """Causal attention of one layer, as Megatron's `Attention` calls it.

    Args:
        config, layer_number, attn_mask_type, attention_type, attention_dropout, softmax_scale: as for Megatron's
            `DotProductAttention`; what the others say does not matter here.
    """

    kernel = "sdpa"
    """One of `isolation.kernels.KERNELS`; `core_attention` makes a class for each."""

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any = None,
        attention_type: str = "self",
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.config = config
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale or 1 / math.sqrt(config.kv_channels)
        self.window = window_of(config, layer_number)
        self._attend = load(self.kernel)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        attn_mask_type: Any = None,
        attention_bias: Any = None,
        packed_seq_params: Any = None,
    ) -> Any:
        """Return what attention gives.

        Args:
            query: [t, heads, d] with `packed_seq_params`, else [s, b, heads, d], of which each row is a segment. With
                context parallelism t and s are this rank's positions.
            key, value: the same with the groups' heads.
            attention_mask, attn_mask_type, attention_bias: must be None or causal.

        Returns:
            [t, heads x d], or [s, b, heads x d].
        """
        assert attention_bias is None, "the trainer gives none"
        assert attention_mask is None, "the trainer gives none"
        options = Options(scale=self.scale, dropout=self.dropout if self.training else 0.0, window=self.window)
        # Megatron forks this generator so that tensor ranks drop differently; sequence parallelism needs no fork.
        forked = bool(options.dropout) and not self.config.sequence_parallel
        with tensor_parallel.get_cuda_rng_tracker().fork() if forked else contextlib.nullcontext():
            if packed_seq_params is not None:
                assert isinstance(packed_seq_params, SegmentedSeqParams)
                assert packed_seq_params.segments is not None
                segments, shares = packed_seq_params.segments, packed_seq_params.shares
                output = self._exchanged(query, key, value, segments, shares, options)
                return output.reshape(output.shape[0], -1)
            size, rows = query.shape[:2]
            ranks = self.config.context_parallel_size
            segments = rows_as_segments(size * ranks, rows, query.device)
            shares = None if ranks == 1 else shares_of_rows(size * ranks, rows, query.device)
            q, k, v = (part.transpose(0, 1).reshape(size * rows, *part.shape[2:]) for part in (query, key, value))
            output = self._exchanged(q, k, v, segments, shares, options)
            return output.reshape(rows, size, -1).transpose(0, 1).contiguous()

    def _exchanged(
        self, query: Any, key: Any, value: Any, segments: Segments, shares: ContextShares | None, options: Options
    ) -> Any:
        """Return what the kernel gives; with context parallelism it is called for all positions of some heads."""
        if shares is None:
            return self._attend(query, key, value, segments, options)
        group = parallel_state.get_context_parallel_group()
        times = repeats(query.shape[1], key.shape[1], group.size())
        if times > 1:
            key, value = (part.repeat_interleave(times, dim=1) for part in (key, value))
        q, k, v = (to_heads(part, shares, group) for part in (query, key, value))
        return to_positions(self._attend(q, k, v, segments, options), shares, group)

    def sharded_state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the parameters for a checkpoint: there are none."""
        return {}


@cache
def rows_as_segments(size: int, rows: int, device: Any) -> Segments:
    """Return the segments of `rows` rows of `size` positions, one behind the other."""
    bounds = torch.arange(0, size * rows + 1, size, dtype=torch.int32, device=device)
    return Segments(bounds=bounds, lengths=(size,) * rows)


@cache
def shares_of_rows(size: int, rows: int, device: Any) -> ContextShares:
    """Return the shares of the segments that `rows_as_segments` gives, for this context-parallel rank."""
    return context_shares(
        rows_as_segments(size, rows, device),
        ranks=parallel_state.get_context_parallel_world_size(),
        rank=parallel_state.get_context_parallel_rank(),
        device=device,
    )


def window_of(config: Any, layer_number: int) -> tuple[int, int] | None:
    """Return the sliding window of a layer: positions before and behind itself that one sees; None: all before it."""
    window = getattr(config, "window_size", None)
    if window is None:
        return None
    skip = getattr(config, "window_attn_skip_freq", None)
    if isinstance(skip, int) and layer_number % skip == 0:
        return None
    if isinstance(skip, list) and not skip[layer_number - 1]:
        return None
    return int(window[0]), int(window[1])


@cache
def core_attention(kernel: str) -> type[CoreAttention]:
    """Return the class that calls a kernel, for Megatron's layer specification."""
    return type(f"CoreAttention_{kernel}", (CoreAttention,), {"kernel": kernel})
