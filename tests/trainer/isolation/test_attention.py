"""What attention is told about a packed sample."""

from __future__ import annotations

import pytest
import torch

from sft_shards.trainer.isolation.attention import block_mask, packed_seq_params

pytestmark = pytest.mark.unit

POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 0]])


def test_the_mask_is_causal_within_a_conversation() -> None:
    mask = block_mask(POSITIONS)
    assert mask.shape == (2, 1, 6, 6)
    segments = [[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 1]]
    for row, segment in enumerate(segments):
        for query in range(6):
            for key in range(6):
                seen = key <= query and segment[key] == segment[query]
                assert bool(mask[row, 0, query, key]) is not seen


@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_packed_attention_is_told_where_each_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, non_blocking=False: self)
    params = packed_seq_params(POSITIONS[:1])
    assert params.qkv_format == "thd"
    assert params.cu_seqlens_q.tolist() == params.cu_seqlens_kv.tolist() == [0, 3, 5, 6]
    assert params.cu_seqlens_q.dtype == torch.int32
    assert (params.max_seqlen_q, params.max_seqlen_kv) == (3, 3)
    with pytest.raises(AssertionError):
        packed_seq_params(POSITIONS)
