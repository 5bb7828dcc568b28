"""Ids of a batch of renderings, where each token stands in its text, and the masks that follow.

All texts are given to the engine as one where that is the same: where each begins with a control token, at which
every tokenizer cuts a text before it does anything else. One long text costs a quarter less than hundreds of short
ones. That it was the same shows at the borders: a token begins at every one of them, and the bytes before it, in
number and sum, are those of the texts. Where they are not, the texts are encoded one by one.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.fast import Texts
from preprocess.lengths import ByteLengths, pack, unpacked_lengths
from preprocess.token_engine import Engine, Flat


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
    if table.composes and not _stay_apart(texts.contents):
        return None
    ids = engine.encode(["".join(texts.words)]).ids
    edges = table.edges(ids, np.zeros(1, dtype=np.int64))
    places = unpacked_lengths(edges)
    sizes, sums = np.zeros((2, len(texts.sizes) + 1), dtype=np.uint64)
    np.cumsum(texts.sizes, out=sizes[1:], dtype=np.uint64)
    np.cumsum(texts.sums, out=sums[1:])
    bounds = np.searchsorted(places, sizes.astype(np.uint32)).astype(np.int64)
    whole = bounds[-1] == len(ids) and np.array_equal(edges[bounds], pack(sizes, sums))
    if not whole or not table.control[ids[bounds[:-1]]].all():
        return None
    return Aligned(flat=Flat(ids=ids, bounds=bounds), places=places, sound=np.ones(len(sizes) - 1, dtype=bool))


def _stay_apart(texts: list[str]) -> bool:
    """Whether texts are in NFC, and what is written before them cannot change that."""
    wide = [text for text in texts if not text.isascii()]
    firsts = {text[0] for text in wide}
    if any("\u1100" <= first <= "\u11ff" or unicodedata.category(first).startswith("M") for first in firsts):
        return False
    return all(unicodedata.is_normalized("NFC", text) for text in wide)


def align(flat: Flat, texts: Texts, table: ByteLengths) -> Aligned:
    """Find the places of ids of texts that were encoded one by one."""
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    edges = table.edges(flat.ids, starts)
    sound = edges[stops] - edges[starts] == pack(texts.sizes.astype(np.uint64), texts.sums)
    if table.composes:
        for at, text in enumerate(texts.texts):
            if not text.isascii() and not unicodedata.is_normalized("NFC", text):
                sound[at] = False
    return Aligned(flat=flat, places=unpacked_lengths(edges), sound=sound)


def masks(aligned: Aligned, texts: Texts, *, train_straddling: bool) -> Masked:
    """The loss masks of encoded renderings, by `token_mask`'s rule in bytes."""
    flat, places, owner = aligned.flat, aligned.places, texts.owner
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    spans = (texts.spans + places[starts[owner]][:, None]).astype(np.uint32)
    first, last = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
    left = np.minimum(np.searchsorted(places[1:], first, "right"), np.searchsorted(places[:-1], first, "left"))
    right = np.searchsorted(places[:-1], last, "left")
    left, right = (np.clip(side, starts[owner], stops[owner]) for side in (left, right))
    turns = np.zeros(2 * len(owner) + 2, dtype=np.int64)
    turns[1:-1:2], turns[2:-1:2], turns[-1] = left, right, len(flat.ids)
    runs = np.diff(np.maximum.accumulate(turns))  # a token that reaches into two spans is trained once
    loss_mask = np.repeat(np.resize(np.array([0, 1], dtype=np.uint8), len(runs)), runs)
    inside = np.minimum(left, max(len(flat.ids) - 1, 0))
    before = np.concatenate([last[:0], [0], last[:-1]])  # a token that begins in the span before is that one's
    across = (left < right) & (places[inside] < first) & (places[inside + 1] > first) & (places[inside] >= before)
    if not train_straddling:
        loss_mask[inside[across]] = 0
    return Masked(loss_mask=loss_mask, straddling=np.bincount(owner[across], minlength=len(texts.sizes)))
