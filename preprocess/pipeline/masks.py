"""Loss masks: which tokens hold a trained part of the text.

There are two ways to know where a token stands in its text, and one rule. `mask_from_offsets` takes the characters that
Hugging Face gives for each token of one text. `masks_from_bytes` takes the bytes that each token stands for, summed,
for all texts of a batch at once; it needs no offsets, and is right wherever the tokens stand for the very bytes of the
text.

The rule: a token carries loss where it holds a character of a trained span. A token that begins before a span and ends
inside it is said to straddle; `--straddle` says whether it carries loss. A mask changes no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.templates import Span


@dataclass(frozen=True, kw_only=True)
class LocatedTokens:
    """The token ids of several texts, and where each token stands.

    Two texts, "Hi yo" as the tokens "Hi", " yo" and "ok" as one, which is no. 2:

        ids        [.., .., ..]
        offsets    [0, 2, 3]
        positions  [0, 2, 5, 7]
    """

    ids: NDArray[np.int32]
    """int32[T]: token ids of all texts, one after the other."""
    offsets: NDArray[np.int64]
    """int64[n + 1], in tokens: text i has `ids[offsets[i]:offsets[i + 1]]`."""
    positions: NDArray[np.uint32]
    """uint32[T + 1], in bytes: where each token begins, counted over the tokens of all texts, with the end of the last.
    """
    matches: NDArray[np.bool_]
    """bool[n]: the tokens of a text stand for its very bytes. Where they do not, its positions mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The loss masks of several texts."""

    loss_mask: NDArray[np.uint8]
    """u8[T], 0/1, unshifted: entry j says whether token j, as a target, carries loss."""
    trained: NDArray[np.int64]
    """int64[n]: tokens of each text that carry loss."""
    straddling: NDArray[np.int64]
    """int64[n]: tokens of each text that straddle the start of a span, whether they carry loss or not."""


def masks_from_bytes(
    tokens: LocatedTokens, spans: NDArray[np.int64], owners: NDArray[np.int64], *, train_straddling: bool
) -> Masks:
    """Return the loss masks of several texts at once.

    One text, "Hi! Yo<e>", as three tokens "Hi", "! Yo", "<e>", of which "Yo<e>" is trained:

        positions  [0, 2, 6, 9]
        span       [4, 9)
        left       1    the token that holds byte 4: no token begins there, so it is the one before the next border
        right      3    the first token that begins at byte 9 or behind it; there is none
        runs       [1, 2, 0]: one token without loss, two with, none behind them
        loss_mask  [0, 1, 1]

    Token 1 begins at byte 2, before the span, and ends at 6, inside it: it straddles. Where such tokens carry no loss,
    the mask is [0, 0, 1].

    Args:
        tokens: positions are used where they match.
        spans: int64[s, 2], trained spans, [start, end) in bytes of their own text; not empty, rising within a text,
            and not overlapping.
        owners: int64[s], rising: the text that each span belongs to.
        train_straddling: whether tokens that straddle carry loss.
    """
    positions, count = tokens.positions, len(tokens.ids)
    text_starts, text_ends = tokens.offsets[:-1], tokens.offsets[1:]
    if not count:
        none = np.zeros(len(text_starts), dtype=np.int64)
        return Masks(loss_mask=np.zeros(0, dtype=np.uint8), trained=none, straddling=none)
    absolute = (spans + positions[text_starts[owners]][:, None]).astype(np.uint32)
    starts, ends = np.ascontiguousarray(absolute[:, 0]), np.ascontiguousarray(absolute[:, 1])
    left = np.searchsorted(positions, starts, "left")
    left -= positions[np.minimum(left, len(positions) - 1)] != starts  # no token begins there: the one before holds it
    right = np.searchsorted(positions[:-1], ends, "left")
    # Spans of texts that do not match may point anywhere; they must not reach into other texts.
    left, right = (np.clip(side, text_starts[owners], text_ends[owners]) for side in (left, right))
    borders = np.zeros(2 * len(owners) + 2, dtype=np.int64)
    borders[1:-1:2], borders[2:-1:2], borders[-1] = left, right, count
    runs = np.diff(np.maximum.accumulate(borders))  # a token that two spans share is counted for the first of them
    loss_mask = np.repeat(np.resize(np.array([0, 1], dtype=np.uint8), len(runs)), runs)
    first = np.minimum(left, count - 1)
    previous_ends = np.concatenate([ends[:0], [0], ends[:-1]])
    straddles = (left < right) & (positions[first] < starts) & (positions[first + 1] > starts)
    straddles &= positions[first] >= previous_ends  # else it begins in the span before, and belongs to that one
    trained = np.bincount(owners, weights=runs[1::2], minlength=len(text_starts)).astype(np.int64)
    straddling = np.bincount(owners[straddles], minlength=len(text_starts))
    if not train_straddling:
        loss_mask[first[straddles]] = 0
        trained -= straddling
    return Masks(loss_mask=loss_mask, trained=trained, straddling=straddling)


def mask_from_offsets(
    offsets: NDArray[np.int64], spans: Sequence[Span], *, train_straddling: bool
) -> tuple[NDArray[np.uint8], int]:
    """Return the loss mask of one text, u8[L], and how many of its tokens straddle the start of a span.

    A token without characters (a space that SentencePiece puts in front) carries loss where it stands inside of a span
    or at its start. Three tokens with the offsets [(0, 2), (2, 6), (6, 9)] and the span (4, 9) give ([0, 1, 1], 1).

    Args:
        offsets: int64[L, 2], [start, end) of each token in characters.
        spans: trained spans in characters, in order, not overlapping.
        train_straddling: whether tokens that straddle carry loss.
    """
    mask = np.zeros(len(offsets), dtype=np.uint8)
    if not spans:
        return mask, 0
    bounds = np.asarray(spans, dtype=np.int64)
    starts, ends = offsets[:, 0], offsets[:, 1]
    empty = starts == ends
    # Of all spans that a token overlaps, only the first can begin behind the token's start: the first span that ends
    # behind it. Tokens in no span and before none get the number of spans.
    span = np.searchsorted(bounds[:, 1], starts, side="right")
    before_the_end = span < len(bounds)
    nearest = bounds[np.minimum(span, len(bounds) - 1)]
    mask[before_the_end & np.where(empty, starts >= nearest[:, 0], ends > nearest[:, 0])] = 1
    straddles = before_the_end & ~empty & (starts < nearest[:, 0]) & (ends > nearest[:, 0])
    if not train_straddling:
        mask[straddles] = 0
    return mask, int(straddles.sum())
