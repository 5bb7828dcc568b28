"""Attention of packed segments is that of each segment alone, output and gradients, by every kernel that is there."""

from __future__ import annotations

import pytest

from sft_shards.trainer.isolation.kernels import KINDS, load, missing
from sft_shards.trainer.isolation.trial import difference, probe
from sft_shards.trainer.launch import gpus


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_passes_its_trial(kind: str) -> None:
    if not gpus.count():
        pytest.skip("torch finds no GPU on this machine")
    if why := missing(kind):
        pytest.skip(why)
    assert probe(kind) == ""


def test_sdpa_is_plain_attention_in_float32(device: str) -> None:
    import torch

    where = "cuda" if device == "gpu" else "cpu"
    assert difference(load("sdpa"), device=where, dtype=torch.float32) < 1e-4
