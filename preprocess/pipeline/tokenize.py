"""Ids of a batch of renderings, where each token stands in its text, and the masks that follow.

All texts are given to the engine as one where that is the same: where each begins with a control token, at which
every tokenizer cuts a text before it does anything else. One long text costs a quarter less than hundreds of short
ones. That it was the same shows at the borders: a token begins at every one of them, and the bytes before it, in
number, are those of the texts; and the values of all bytes have the same sum. Where that is not so, the texts are
encoded one by one.
"""

from __future__ import annotations

import numpy as np

from sft_shards.preprocess.pipeline.masks import Aligned
from sft_shards.preprocess.pipeline.render import Texts
from sft_shards.preprocess.tokenizer.backends import Engine, Flat
from sft_shards.preprocess.tokenizer.byte_lengths import ByteLengths, pack, unpacked_lengths


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
