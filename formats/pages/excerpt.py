"""A masked conversation as a page shows it: whole, or its beginning and its end, within a bound of characters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.masked_text import Decodes, MaskedSpan, masked_spans
from sft_shards.formats.terminal import printable_text

HEAD, TAIL = 1600, 300
"""Tokens that are decoded at the beginning and at the end of a long conversation."""
CHARACTERS = 9000
"""Characters of a conversation, at most; three quarters of them are its beginning's."""
MARKUP = 25
"""Characters that a span counts for besides its text."""
EDGE = re.compile(r"^\n+|\n+$")
"""Line ends at the edge of a span, which nobody sees otherwise."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A span of a conversation, or what stands in the place of spans that are not shown."""

    text: str
    trained: bool
    is_gap: bool = False


def excerpt(
    ids: NDArray[Any], loss_mask: NDArray[np.uint8], decoder: Decodes, *, characters: int = CHARACTERS
) -> tuple[Piece, ...]:
    """Cut a conversation into pieces where its mask changes, and leave its middle out if it is too long.

    Args:
        ids: int[L].
        loss_mask: u8[L], 0/1, unshifted.
        characters: bound of all texts together, besides the words in a gap.
    """
    if len(ids) <= HEAD + TAIL:
        spans = masked_spans(ids, loss_mask, decoder)
        if sum(_cost(span) for span in spans) <= characters:
            return tuple(map(_piece, spans))
        middle, head, tail = "", spans, spans[::-1]
    else:
        left, trained = len(ids) - HEAD - TAIL, int(loss_mask[HEAD : len(ids) - TAIL].sum())
        middle = f"{left:,} tokens more, {trained:,} of them trained"
        head = masked_spans(ids[:HEAD], loss_mask[:HEAD], decoder)
        tail = masked_spans(ids[-TAIL:], loss_mask[-TAIL:], decoder)[::-1]
    first, whole = _within(head, characters * 3 // 4)
    last, complete = _within(tail, characters // 4, from_end=True)
    if not (whole and complete):
        middle = f"{middle}, and text beside them" if middle else "text that is too long to be shown"
    return (*first, Piece(text=middle, trained=False, is_gap=True), *last[::-1])


def _within(spans: Iterable[MaskedSpan], characters: int, *, from_end: bool = False) -> tuple[list[Piece], bool]:
    """Return pieces up to a number of characters, the last one cut, and whether they are all."""
    pieces: list[Piece] = []
    for span in spans:
        piece = _piece(span)
        room = characters - MARKUP
        if room <= 0:
            return pieces, False
        if len(piece.text) > room:
            text = piece.text[-room:] if from_end else piece.text[:room]
            return [*pieces, Piece(text=text, trained=piece.trained)], False
        pieces.append(piece)
        characters -= len(piece.text) + MARKUP
    return pieces, True


def _cost(span: MaskedSpan) -> int:
    return len(printable_text(span.text)) + MARKUP


def _piece(span: MaskedSpan) -> Piece:
    text = printable_text(span.text)
    if span.trained:
        text = EDGE.sub(lambda found: found[0].replace("\n", "↵\n"), text)
    return Piece(text=text, trained=span.trained)
