"""Ids of a batch of renderings, where each token stands in its text, and the masks that follow.

All texts are given to the engine as one where that is the same: where each begins with a control token, at which
every tokenizer cuts a text before it does anything else. One long text costs a quarter less than hundreds of short
ones. That it was the same shows at the borders: a token begins at every one of them, and the bytes before it, in
number, are those of the texts; and the values of all bytes have the same sum. Where that is not so, the texts are
encoded one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.preprocess.pipeline.render import Texts
from sft_shards.preprocess.tokenizer.backends import Engine, Flat
from sft_shards.preprocess.tokenizer.byte_lengths import ByteLengths, pack, unpacked_lengths


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


def encode(engine: Engine, texts: Texts, table: ByteLengths) -> Aligned:
    """Encode renderings, of which none is empty."""
    if engine.joins and all(words.startswith(table.openers) for words in texts.begin_with):
        together = _encode_together(engine, texts, table)
        if together is not None:
            return together
    return align(engine.encode(texts.texts), texts, table)


def _encode_together(engine: Engine, texts: Texts, table: ByteLengths) -> Aligned | None:
    """Encode them as one text; None where it does not show that this is the same."""
    ids = engine.encode([texts.whole]).ids
    edges = table.edges(ids, np.zeros(1, dtype=np.int64))
    places = unpacked_lengths(edges)
    ends = texts.ends.astype(np.uint32)
    bounds = np.searchsorted(places, ends).astype(np.int64)
    total = texts.values.sum(dtype=np.uint64)
    whole = bounds[-1] == len(ids) and edges[-1] == pack(ends[-1], total) and np.array_equal(places[bounds], ends)
    if not whole or not table.control[ids[bounds[:-1]]].all():
        return None
    return Aligned(flat=Flat(ids=ids, bounds=bounds), places=places, sound=np.ones(len(bounds) - 1, dtype=bool))


def align(flat: Flat, texts: Texts, table: ByteLengths) -> Aligned:
    """Find the places of ids of texts that were encoded one by one."""
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    edges = table.edges(flat.ids, starts)
    sums = np.add.reduceat(texts.values, texts.ends[:-1], dtype=np.uint64)
    sound = edges[stops] - edges[starts] == pack(np.diff(texts.ends).astype(np.uint64), sums)
    return Aligned(flat=flat, places=unpacked_lengths(edges), sound=sound)


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
