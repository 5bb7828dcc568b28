"""The positions of a row that each context-parallel rank computes.

Every segment is cut into twice as many chunks as there are ranks, and a rank takes one from the front and its mirror
image from the back: attention costs a position as much as there are positions before it, so all ranks have equal work.
This is the order in which Megatron's rotary positions and Transformer Engine's attention expect a packed row
(`_get_thd_freqs_on_this_cp_rank` in Megatron's rope_utils, 0.12 to 0.19).

    one segment of 8 positions, two ranks:  rank 0 has 0 1 6 7,  rank 1 has 2 3 4 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sft_shards.trainer.isolation.segments import Segments


@dataclass(frozen=True, kw_only=True)
class ContextShares:
    """Which positions of a row of t positions each of several ranks has."""

    mine: Any
    """int64[t / ranks], rising, on the host: the positions of this rank."""
    by_rank: Any
    """int64[t], on the device: the positions of rank 0, then of rank 1, and so on."""
    places: Any
    """int64[t], on the device: where each position stands in `by_rank`."""


def context_shares(segments: Segments, *, ranks: int, rank: int, device: Any) -> ContextShares:
    """Return the shares of a row.

    Args:
        segments: each a multiple of 2 x ranks long.
        ranks: context-parallel ranks.
        rank: which of them this is, from 0.
        device: where the order of positions is needed.
    """
    import torch

    lengths = torch.tensor(segments.lengths)
    assert not (lengths % (2 * ranks)).any(), "see `pack_plan`"
    starts = lengths.cumsum(0) - lengths
    inside = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
    chunks = inside // (lengths // (2 * ranks)).repeat_interleave(lengths)
    owners = torch.minimum(chunks, 2 * ranks - 1 - chunks)
    by_rank = torch.argsort(owners, stable=True)
    return ContextShares(
        mine=torch.nonzero(owners == rank).flatten(),
        by_rank=by_rank.to(device, non_blocking=True),
        places=torch.argsort(by_rank).to(device, non_blocking=True),
    )
