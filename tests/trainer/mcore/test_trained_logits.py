"""Logits of trained positions alone: the loss and gradients of all, in any chunks, with the memory of one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_shards.trainer.mcore.trained_logits import Selection, install, selecting, supports, trained_positions

pytestmark = pytest.mark.unit

HIDDEN, WORDS = 6, 11


class Layer(torch.nn.Module):
    """An output layer as Megatron calls it, which remembers how many positions it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(WORDS, HIDDEN, dtype=torch.float64))
        self.sequence_parallel = False
        self.given: list[int] = []

    def forward(self, hidden: Any, weight: Any = None, runtime_gather_output: Any = None) -> tuple[Any, None]:
        self.given.append(hidden.shape[0] * hidden.shape[1])
        return hidden @ (self.weight if weight is None else weight).T, None


def model() -> Any:
    def loss(labels: Any, logits: Any) -> Any:
        rows = logits.transpose(0, 1)
        return torch.nn.functional.cross_entropy(rows.flatten(0, 1), labels.flatten(), reduction="none").view(
            labels.shape
        )

    made = SimpleNamespace(output_layer=Layer(), compute_language_model_loss=loss)
    install(made)
    return made


def call(made: Any, hidden: Any, labels: Any, weight: Any = None) -> Any:
    """As GPTModel does at the end of its forward pass."""
    logits, _ = made.output_layer(hidden, weight=weight, runtime_gather_output=None)
    return made.compute_language_model_loss(labels, logits)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3), size=st.integers(1, 6), chunk=st.integers(1, 8), seed=st.integers(0, 99), tied=st.booleans()
)
def test_loss_and_gradients_are_those_of_all_logits(rows: int, size: int, chunk: int, seed: int, tied: bool) -> None:
    torch.manual_seed(seed)
    made = model()
    weight = made.output_layer.weight if tied else None
    hidden = torch.randn(size, rows, HIDDEN, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, WORDS, (rows, size))
    mask = torch.randint(0, 2, (rows, size))

    def gradients(losses: Any) -> list[Any]:
        total = (losses * mask).sum()
        return [total.detach(), *torch.autograd.grad(total, [hidden, made.output_layer.weight])]

    everywhere = gradients(call(made, hidden, labels, weight))
    made.output_layer.given.clear()
    with selecting(Selection(positions=trained_positions(mask), chunk=chunk)):
        losses = call(made, hidden, labels, weight)
    assert losses.shape == labels.shape
    count = max(1, int(mask.sum()))
    assert sum(made.output_layer.given) == count
    assert max(made.output_layer.given) <= chunk
    for found, expected in zip(gradients(losses), everywhere, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_chunks_are_computed_again_in_the_backward_pass() -> None:
    made = model()
    hidden = torch.randn(5, 1, HIDDEN, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(1, 5, dtype=torch.int64)
    with selecting(Selection(positions=torch.arange(5), chunk=2)):
        losses = call(made, hidden, labels)
    assert made.output_layer.given == [2, 2, 1]
    losses.sum().backward()
    assert sorted(made.output_layer.given) == sorted([2, 2, 1, 2, 2, 1])


def test_hooks_of_the_output_layer_see_logits_alone() -> None:
    made, seen = model(), []
    made.output_layer.register_forward_hook(lambda layer, given, output: seen.append(output[0].shape[-1]))
    hidden, labels = torch.randn(4, 1, HIDDEN, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.int64)
    with selecting(Selection(positions=torch.arange(3), chunk=2)):
        call(made, hidden, labels)
    call(made, hidden, labels)
    assert seen == [WORDS] * 3


def test_without_a_trained_position_the_loss_is_nothing() -> None:
    assert trained_positions(torch.zeros(2, 3)).tolist() == [0]
    assert trained_positions(torch.tensor([[0, 1], [1, 0]])).tolist() == [1, 2]


def test_where_megatron_computes_other_losses_all_logits_are_computed() -> None:
    assert supports(SimpleNamespace())
    assert not supports(SimpleNamespace(mtp_num_layers=1))
    assert not supports(SimpleNamespace(defer_embedding_wgrad_compute=True))
