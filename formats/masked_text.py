"""Tokens and their loss mask as spans of text: the one form in which a masked sequence is shown, wherever that is.

ids 5 6 7, mask 0 1 1  ──▶  "…" without loss, "… …" with loss
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Decodes(Protocol):
    """What gives the text of ids: a directory's `Decoder`, or a job's tokenizer."""

    def decode(self, ids: NDArray[Any], /) -> str:
        """Return the text of ids, int[L], control tokens included."""


@dataclass(frozen=True, kw_only=True)
class MaskedSpan:
    """Consecutive tokens that all carry loss, or all do not."""

    text: str
    """The tokens decoded by themselves, control tokens included."""
    trained: bool
    """Whether they carry loss."""
    tokens: int
    """How many there are."""


def masked_spans(ids: NDArray[Any], loss_mask: NDArray[np.uint8], decoder: Decodes) -> list[MaskedSpan]:
    """Cut a sequence wherever its mask changes, and decode each span.

    Three tokens with the mask 0 1 1 are two spans: the first token, and the other two.

    Args:
        ids: int[L], L at least 1.
        loss_mask: u8[L], 0/1, unshifted.
    """
    cuts = np.flatnonzero(np.diff(loss_mask.astype(np.int8))) + 1
    return [
        MaskedSpan(text=decoder.decode(part), trained=bool(mask[0]), tokens=len(part))
        for part, mask in zip(np.split(ids, cuts), np.split(loss_mask, cuts), strict=True)
    ]
