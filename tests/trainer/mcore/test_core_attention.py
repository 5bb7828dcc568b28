"""The attention in Megatron's own layers has the sliding window and the dropout that Megatron's flags ask for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sft_shards.trainer.isolation.kernels import Options
from sft_shards.trainer.isolation.segments import find_segments

pytestmark = pytest.mark.megatron


def layer(number: int = 1, **config: Any) -> Any:
    from sft_shards.trainer.mcore.core_attention import CoreAttention

    usual = {"attention_dropout": 0.0, "kv_channels": 4, "sequence_parallel": True, "context_parallel_size": 1}
    return CoreAttention(SimpleNamespace(**{**usual, **config}), number)


@pytest.mark.parametrize("skip", [None, 1, 2, 3, [1, 0, 1, 1, 0, 0]])
@pytest.mark.parametrize("window", [None, (7, 0)])
def test_layers_have_the_window_that_megatron_means(window: Any, skip: Any) -> None:
    from megatron.core.transformer.utils import is_layer_window_attention

    for number in range(1, 7):
        found = layer(number, window_size=window, window_attn_skip_freq=skip).window
        assert found == (window if is_layer_window_attention(window, skip, number) else None)
    assert layer().window is None, "a Megatron without windows"


def test_packed_rows_get_window_scale_and_dropout_while_training() -> None:
    from sft_shards.trainer.mcore.core_attention import packed_seq_params

    called: list[tuple[tuple[int, ...], Options]] = []

    def attend(query: Any, key: Any, value: Any, segments: Any, options: Options) -> Any:
        called.append((segments.lengths, options))
        return query

    made = layer(attention_dropout=0.1, window_size=(7, 0))
    made._attend = attend
    packed = packed_seq_params(find_segments(torch.tensor([[0, 1, 2, 0, 1]]), "cpu"))
    row = torch.ones(5, 2, 4)
    assert made(row, row, row, packed_seq_params=packed).shape == (5, 8)
    made.eval()
    made(row, row, row, packed_seq_params=packed)
    assert called == [
        ((3, 2), Options(scale=0.5, dropout=0.1, window=(7, 0))),
        ((3, 2), Options(scale=0.5, dropout=0.0, window=(7, 0))),
    ]
