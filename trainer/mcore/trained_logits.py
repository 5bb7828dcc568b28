"""Compute logits where labels carry loss, and nowhere else.

A third of the positions of chat data carry loss, and logits of a vocabulary of 150,000 cost more than the layers of a
small model. The hidden states of trained positions are selected before the output layer, which with sequence
parallelism are gathered first; the others contribute nothing to the loss or its gradient. What remains goes through the
output layer in chunks whose logits are computed again in the backward pass, so that the memory of logits is that of one
chunk.

    mask 0 1 1 0 1, chunks of 2:  logits of positions 1 and 2, then of position 4

Megatron's model calls its output layer and then its loss. Both are replaced on the instance; outside of `selecting`
they do what they did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The positions of a micro-batch whose logits are computed."""

    positions: torch.Tensor
    """int64[n], on the device: positions of the rows [b, s], one row behind the other; at least one."""
    chunk: int
    """Positions whose logits are held at a time."""


_current: list[Selection] = []


@contextlib.contextmanager
def selecting(selection: Selection) -> Iterator[None]:
    """Have models compute logits of the selected positions only; the losses of the others are 0."""
    _current.append(selection)
    try:
        yield
    finally:
        _current.pop()


def trained_positions(loss_mask: torch.Tensor) -> torch.Tensor:
    """Return int64[n]: where a mask of rows [b, s] is not 0, one row behind the other.

    A mask of zeros gives position 0: tensor-parallel ranks exchange what an output layer gives, and that must not be
    empty. Its loss still counts nothing.

    Args:
        loss_mask: on the CPU; on a GPU the host would have to wait for the number of positions.
    """
    found = torch.nonzero(loss_mask.flatten()).flatten()
    return found if len(found) else torch.zeros(1, dtype=torch.int64)


def supports(args: Any) -> bool:
    """Return whether logits can be left out: not where Megatron predicts several tokens, or delays gradients."""
    return not getattr(args, "mtp_num_layers", None) and not getattr(args, "defer_embedding_wgrad_compute", False)


def install(model: Any) -> None:
    """Replace the call of the output layer and the loss of a Megatron GPTModel that has them.

    Hooks of the output layer are run on logits, as before.
    """
    layer, loss_of = model.output_layer, model.compute_language_model_loss
    plain = type(layer)
    weights: list[Any] = []

    class SelectingLayer(plain):  # type: ignore[misc, valid-type]
        """The output layer, which hands selected hidden states on to the loss."""

        sequence_parallel: bool

        def __call__(self, hidden: torch.Tensor, weight: Any = None, runtime_gather_output: Any = None) -> Any:
            if not _current:
                return super().__call__(hidden, weight=weight, runtime_gather_output=runtime_gather_output)
            weights.append(weight)
            return _selected(hidden, self, _current[-1]), None

        def logits(self, hidden: torch.Tensor, weight: Any) -> torch.Tensor:
            """Return the logits of hidden states that are gathered already, as Megatron's own inference does."""
            before, self.sequence_parallel = self.sequence_parallel, False
            try:
                found: torch.Tensor = super().__call__(hidden, weight=weight)[0]
            finally:
                self.sequence_parallel = before
            return found

    def loss(labels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        if not _current:
            return loss_of(labels, hidden)  # type: ignore[no-any-return]
        weight, selection = weights.pop(), _current[-1]
        expected = labels.flatten().index_select(0, selection.positions).unsqueeze(0)

        def part(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return loss_of(ids, layer.logits(states, weight))  # type: ignore[no-any-return]

        chunks = torch.split(hidden, selection.chunk), torch.split(expected, selection.chunk, dim=1)
        parts = list(zip(*chunks, strict=True))
        if len(parts) == 1 or not torch.is_grad_enabled():
            losses = [part(*each) for each in parts]
        else:
            losses = [checkpoint(part, *each, use_reentrant=False, preserve_rng_state=False) for each in parts]
        found = torch.cat(losses, dim=1).flatten()
        return found.new_zeros(labels.numel()).index_copy(0, selection.positions, found).view(labels.shape)

    layer.__class__, model.compute_language_model_loss = SelectingLayer, loss


def _selected(hidden: torch.Tensor, layer: Any, selection: Selection) -> torch.Tensor:
    """Return [n, 1, h]: the hidden states of the selected positions.

    Args:
        hidden: [s, b, h]; with sequence parallelism this rank's part of the s positions.
    """
    if layer.sequence_parallel:
        from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

        hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
    size, rows, width = hidden.shape
    places = selection.positions % size * rows + selection.positions // size
    return hidden.reshape(size * rows, width).index_select(0, places).unsqueeze(1)
