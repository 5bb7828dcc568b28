"""Loss masks: from the characters of each token (offsets), or from the bytes that each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.templates import Span
from sft_shards.preprocess.pipeline.render import Texts
from sft_shards.preprocess.tokenizer.backends import Flat


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The ids of several texts, with their places."""

    flat: Flat
    places: NDArray[np.uint32]
    """uint32[T + 1]: the bytes that all tokens before each stand for, and of all."""
    sound: NDArray[np.bool_]
    """bool[n]: the ids stand for the bytes of the text; where not, its places mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Masks of a batch of renderings."""

    loss_mask: NDArray[np.uint8]
    """u8[T]."""
    trained: NDArray[np.int64]
    """int64[n]: tokens of each that carry loss."""
    straddling: NDArray[np.int64]
    """int64[n]."""


def masks(aligned: Aligned, texts: Texts, *, train_straddling: bool) -> Masked:
    """The loss masks of encoded renderings, by `token_mask`'s rule in bytes."""
    flat, places, owner = aligned.flat, aligned.places, texts.owner
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    spans = (texts.spans + places[starts[owner]][:, None]).astype(np.uint32)
    first, last = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
    left = np.searchsorted(places, first, "left")
    left -= places[np.minimum(left, len(places) - 1)] != first  # else it is inside of the token before
    right = np.searchsorted(places[:-1], last, "left")
    left, right = (np.clip(side, starts[owner], stops[owner]) for side in (left, right))
    turns = np.zeros(2 * len(owner) + 2, dtype=np.int64)
    turns[1:-1:2], turns[2:-1:2], turns[-1] = left, right, len(flat.ids)
    runs = np.diff(np.maximum.accumulate(turns))  # a token that reaches into two spans is trained once
    loss_mask = np.repeat(np.resize(np.array([0, 1], dtype=np.uint8), len(runs)), runs)
    inside = np.minimum(left, max(len(flat.ids) - 1, 0))
    before = np.concatenate([last[:0], [0], last[:-1]])  # a token that begins in the span before is that one's
    across = (left < right) & (places[inside] < first) & (places[inside + 1] > first) & (places[inside] >= before)
    trained = np.bincount(owner, weights=runs[1::2], minlength=len(starts)).astype(np.int64)
    straddling = np.bincount(owner[across], minlength=len(starts))
    if not train_straddling:
        loss_mask[inside[across]] = 0
        trained -= straddling
    return Masked(loss_mask=loss_mask, trained=trained, straddling=straddling)


def token_mask(
    offsets: NDArray[np.int64], trained: Sequence[Span], *, train_straddling: bool
) -> tuple[NDArray[np.uint8], int]:
    """The loss mask of tokens from their characters.

    A token carries loss where it holds a character of a trained span. One without characters (a space that
    SentencePiece put there) carries loss where it stands inside of a span or at its start.

    Args:
        offsets: int64[L, 2], [start, end) of each token in characters.
        trained: spans in order, apart from each other.
        train_straddling: whether a token that begins before a span and ends inside it carries loss.

    Returns:
        u8[L], and how many tokens straddle the start of a span.
    """
    mask = np.zeros(len(offsets), dtype=np.uint8)
    if not trained:
        return mask, 0
    bounds = np.asarray(trained, dtype=np.int64)
    starts, ends = offsets[:, 0], offsets[:, 1]
    empty = starts == ends
    # The first span that ends after the token begins is the only one it can overlap from the left.
    span = np.searchsorted(bounds[:, 1], starts, side="right")
    inside = span < len(bounds)
    first = bounds[np.minimum(span, len(bounds) - 1)]
    mask[inside & np.where(empty, starts >= first[:, 0], ends > first[:, 0])] = 1
    straddles = inside & ~empty & (starts < first[:, 0]) & (ends > first[:, 0])
    if not train_straddling:
        mask[straddles] = 0
    return mask, int(straddles.sum())
