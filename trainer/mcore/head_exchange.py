"""Exchange positions for heads among context-parallel ranks, so that any kernel of attention can run.

A rank holds some positions of every head. Attention of one head needs all positions, but heads do not need each other;
so before attention each rank gets all positions of some heads, and afterwards its own positions of all heads again
(DeepSpeed-Ulysses, arXiv:2309.14509). Kernels see a row as without context parallelism, in its own order.

    two ranks, two heads:   rank 0  0a 0b 3a 3b  ──▶  0a 1a 2a 3a
                            rank 1  1a 1b 2a 2b  ──▶  0b 1b 2b 3b

The price: the heads of a tensor-parallel rank must divide by the context-parallel ranks. Heads of keys and values that
are fewer than that are repeated.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from sft_shards.trainer.isolation.context_shares import ContextShares


def repeats(heads: int, groups: int, ranks: int) -> int:
    """Return how often heads of keys and values are repeated, so that ranks get equal numbers of them.

    Eight heads in two groups, four ranks: each group twice, so that every rank gets two heads and one group.

    Args:
        heads: of queries, a multiple of `groups` and of `ranks`.
        groups: heads of keys and values.
    """
    assert heads % groups == 0
    assert heads % ranks == 0
    return math.lcm(groups, ranks) // groups


def to_heads(part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
    """Return all positions of this rank's heads, [t, heads / ranks, d].

    Args:
        part: [t / ranks, heads, d], this rank's positions.
        group: Megatron's context-parallel process group.
    """
    found: torch.Tensor = _ToHeads.apply(part, shares, group)  # type: ignore[no-untyped-call]
    return found


def to_positions(part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
    """Return this rank's positions of all heads, [t / ranks, heads, d]: the inverse of `to_heads`."""
    found: torch.Tensor = _ToPositions.apply(part, shares, group)  # type: ignore[no-untyped-call]
    return found


def _gather(part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
    ranks = group.size()
    size, heads, channels = part.shape
    sent = part.view(size, ranks, heads // ranks, channels).transpose(0, 1).contiguous()
    received = torch.empty_like(sent)  # [rank that had the positions, its positions, heads, channels]
    torch.distributed.all_to_all_single(received, sent, group=group)
    return received.view(size * ranks, heads // ranks, channels).index_select(0, shares.places)


def _scatter(part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
    ranks = group.size()
    size, heads, channels = part.shape
    sent = part.index_select(0, shares.by_rank).view(ranks, size // ranks, heads, channels)
    received = torch.empty_like(sent)  # [rank that had the heads, this rank's positions, heads, channels]
    torch.distributed.all_to_all_single(received, sent, group=group)
    return received.transpose(0, 1).reshape(size // ranks, ranks * heads, channels)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
        ctx.exchange = shares, group
        return _gather(part.contiguous(), shares, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _scatter(grads[0], *ctx.exchange), None, None


class _ToPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, shares: ContextShares, group: Any) -> torch.Tensor:
        ctx.exchange = shares, group
        return _scatter(part, shares, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _gather(grads[0].contiguous(), *ctx.exchange), None, None
