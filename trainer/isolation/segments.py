"""The segments of a micro-batch: the positions of one conversation each, and of the padding behind the last.

They follow from `position_ids`, which are 0 at the first position of each conversation and of the padding:

    position_ids 0 1 0   ──▶  bounds 0 2 3,  lengths 2 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Where the segments of a row begin and end."""

    bounds: Any
    """int32[segments + 1], on the device: offsets of the segments, from 0 to the length of the row."""
    lengths: tuple[int, ...]
    """The length of each segment, on the host, so that nobody waits for the GPU to know it."""


def find_segments(position_ids: Any, device: str) -> Segments:
    """Return the segments of rows that are laid one behind the other.

    Args:
        position_ids: int[b, s] on the CPU (on the GPU the host would have to wait for the lengths), 0 at the first
            position of each conversation and of each row.
        device: where the bounds are needed.
    """
    import torch

    assert not position_ids[:, 0].any(), "a row begins a segment"
    starts = torch.nonzero(position_ids.flatten() == 0).flatten()
    bounds = torch.cat([starts, torch.tensor([position_ids.numel()])])
    lengths = tuple((bounds[1:] - bounds[:-1]).tolist())
    return Segments(bounds=bounds.to(torch.int32).to(device, non_blocking=True), lengths=lengths)
