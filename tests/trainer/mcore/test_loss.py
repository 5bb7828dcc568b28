"""The loss function alone, on tensors."""

from __future__ import annotations

import pytest
import torch

from sft_shards.trainer.mcore.loss import loss_func

pytestmark = pytest.mark.unit


def test_the_sum_the_number_and_the_report() -> None:
    losses = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    mask = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    total, count, report = loss_func(mask, losses)
    assert total.item() == 38.0
    assert count.item() == 3
    assert count.dtype == torch.int32
    assert report["lm loss"].tolist() == [38.0, 3.0]


def test_a_mask_of_zeros_is_zero() -> None:
    losses = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    total, count, report = loss_func(torch.zeros(2, 3), losses)
    total.backward()
    assert (total.item(), count.item(), report["lm loss"].tolist()) == (0.0, 0, [0.0, 0.0])
    assert losses.grad is not None
    assert not losses.grad.any()


def test_bf16_losses_are_summed_in_float32() -> None:
    losses = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    total, _, _ = loss_func(torch.ones(1, 4096), losses)
    assert total.dtype == torch.float32
    assert total.item() == 4096.0


def test_sources_are_reported_one_by_one() -> None:
    losses = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    mask = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    _, _, report = loss_func(mask, losses, source=torch.tensor([1, 0]), sources=("a", "b", "none"))
    assert {name: pair.tolist() for name, pair in report.items()} == {
        "lm loss": [38.0, 3.0],
        "lm loss/a": [32.0, 1.0],
        "lm loss/b": [6.0, 2.0],
        "lm loss/none": [0.0, 0.0],
    }
