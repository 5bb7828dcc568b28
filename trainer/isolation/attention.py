"""Tell attention which conversations share a sample: by a block-diagonal mask, or by their offsets (thd).

Both follow from `position_ids`, which are 0 at the first position of each conversation and of the padding:

    position_ids 0 1 0   ──▶  mask: position 0 sees 0, position 1 sees 0 1, position 2 sees 2;   offsets 0 2 3
"""

from __future__ import annotations

from typing import Any


def block_mask(position_ids: Any) -> Any:
    """Return Megatron's attention mask, bool[b, 1, s, s]: True if a position (axis 2) does not see another (axis 3).

    Args:
        position_ids: int[b, s], 0 at the first position of each conversation.
    """
    import torch

    segment = (position_ids == 0).cumsum(dim=1)
    size = position_ids.shape[1]
    later = torch.ones(size, size, dtype=torch.bool, device=position_ids.device).triu(1)
    return ((segment.unsqueeze(2) != segment.unsqueeze(1)) | later).unsqueeze(1)


def packed_seq_params(position_ids: Any) -> Any:
    """Return Megatron's PackedSeqParams for one row: offsets int32[conversations + 1], and the longest length.

    Args:
        position_ids: int[1, s] on the CPU (on the GPU the host would have to wait for the lengths), 0 at the first
            position of each conversation.
    """
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams

    rows, size = position_ids.shape
    assert rows == 1, "thd takes one row"
    starts = torch.nonzero(position_ids[0] == 0).flatten()
    bounds = torch.cat([starts, torch.tensor([size])]).to(torch.int32)
    longest = int((bounds[1:] - bounds[:-1]).max())
    on_gpu = bounds.cuda(non_blocking=True)
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=on_gpu,
        cu_seqlens_kv=on_gpu,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
