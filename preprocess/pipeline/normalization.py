"""Texts as a tokenizer's own first steps would make them: in normalization form C, or without swallowed white space.

The tokens of a normalized text stand for the bytes of that text, so the trained spans are moved along. A text goes to
the reference implementation where a span begins inside of what becomes one character, or where more than the text
decides what its normal form is (see `Normalization`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import prefix_sums
from sft_shards.preprocess.pipeline.batch import RenderedBatch
from sft_shards.preprocess.tokenizer.nfc import FORM, Clusters, Normalization, find_clusters


@dataclass(frozen=True, kw_only=True)
class NormalizedBatch:
    """Texts in normal form."""

    rendered: RenderedBatch
    """The texts, with their spans."""
    supported: NDArray[np.bool_]
    """bool[n]: False for texts of which this says nothing."""
    changed: NDArray[np.bool_]
    """bool[n]: the texts that were not in normal form."""


def normalize(rendered: RenderedBatch, normalization: Normalization) -> NormalizedBatch:
    """Bring texts to normal form."""
    supported, changed = np.ones(len(rendered), dtype=bool), np.zeros(len(rendered), dtype=bool)
    clusters = find_clusters(rendered.text, rendered.text_offsets)
    found: list[tuple[int, int, bytes]] = []
    if len(clusters.begins):
        raw = rendered.text.tobytes()
        owners = np.searchsorted(rendered.text_offsets, clusters.begins, side="right") - 1
        inside = np.isin(owners, _rows_to_change(raw, rendered.text_offsets, clusters, owners, normalization))
        places = zip(owners[inside], clusters.begins[inside].tolist(), clusters.ends[inside].tolist(), strict=True)
        for owner, begin, end in places:
            new = normalization.normalize(raw[begin:end])
            if new is None:
                supported[owner] = False
            elif new != raw[begin:end]:
                changed[owner] = True
                found.append((begin, end, new))
    if not found:
        return NormalizedBatch(rendered=rendered, supported=supported, changed=changed)
    moved, crossed = _replaced(rendered, raw, found)
    supported[crossed] = False
    return NormalizedBatch(rendered=moved, supported=supported, changed=changed)


def without_swallowed(rendered: RenderedBatch, swallowed: re.Pattern[bytes]) -> NormalizedBatch:
    """Take out the white space that belongs to the tokens before it: without it, the ids are the same.

    A span that begins with this white space would begin inside of a token, and its text is not supported.

    Args:
        swallowed: as in `ByteLengths`.
    """
    supported, changed = np.ones(len(rendered), dtype=bool), np.zeros(len(rendered), dtype=bool)
    raw = rendered.text.tobytes()
    offsets = rendered.text_offsets
    places = [(match.start(), *match.span(1)) for match in swallowed.finditer(raw)]
    tokens, begins, ends = np.asarray(places, dtype=np.int64).reshape(-1, 3).T
    owners = np.searchsorted(offsets, tokens, side="right") - 1
    ends = np.minimum(ends, offsets[owners + 1])  # what the next text begins with is not this token's
    found = begins < ends
    if not found.any():
        return NormalizedBatch(rendered=rendered, supported=supported, changed=changed)
    changed[owners[found]] = True
    begins, ends = begins[found], ends[found]
    nothing = [b""] * len(begins)
    moved, crossed = _replaced(rendered, raw, list(zip(begins.tolist(), ends.tolist(), nothing, strict=True)))
    supported[crossed] = False
    starts = rendered.spans[:, 0] + offsets[rendered.span_owners]
    supported[rendered.span_owners[np.isin(starts, begins)]] = False
    return NormalizedBatch(rendered=moved, supported=supported, changed=changed)


def _rows_to_change(
    raw: bytes,
    offsets: NDArray[np.int64],
    clusters: Clusters,
    owners: NDArray[np.int64],
    normalization: Normalization,
) -> NDArray[np.int64]:
    """Return the texts with clusters, int64[m], that are not in normal form for certain.

    Where a text's first cluster changes, most others do, and Python would take as long to say so as to normalize it.

    Args:
        owners: int64[c], rising: the text that each cluster is in.
    """
    changing: list[int] = []
    rows, firsts = np.unique(owners, return_index=True)
    bounds = (
        one.tolist() for one in (clusters.begins[firsts], clusters.ends[firsts], offsets[rows], offsets[rows + 1])
    )
    for row, first, last, begin, end in zip(rows.tolist(), *bounds, strict=True):
        cluster = raw[first:last]
        if normalization.normalize(cluster) != cluster or not unicodedata.is_normalized(FORM, raw[begin:end].decode()):
            changing.append(row)
    return np.union1d(owners[~clusters.known], np.asarray(changing, dtype=np.int64))


def _replaced(
    rendered: RenderedBatch, raw: bytes, found: list[tuple[int, int, bytes]]
) -> tuple[RenderedBatch, NDArray[np.int64]]:
    """Return texts with some of their bytes replaced, and the texts with a span that begins or ends inside of these.

    The text "cafe" + U+0301 + "s" has 7 bytes, of which [3, 6) become the two of "é". What stands at byte 6 or behind
    it moves by -1: the span [6, 7), "s", becomes [5, 6).

    Args:
        raw: the bytes of all texts.
        found: begin, end and new bytes of each replacement, rising.
    """
    begins, ends, new = zip(*found, strict=True)
    bounds = zip([0, *ends], [*begins, len(raw)], [*new, b""], strict=True)
    text = b"".join([part for begin, end, one in bounds for part in (raw[begin:end], one)])
    firsts, lasts = np.asarray(begins, dtype=np.int64), np.asarray(ends, dtype=np.int64)
    shifts = prefix_sums(np.asarray(list(map(len, new)), dtype=np.int64) - (lasts - firsts))

    def moved(places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places + shifts[np.searchsorted(lasts, places, side="right")]

    owners = rendered.span_owners
    spans = rendered.spans + rendered.text_offsets[owners][:, None]
    inside = np.searchsorted(firsts, spans, side="left") > np.searchsorted(lasts, spans, side="right")
    offsets = moved(rendered.text_offsets)
    replaced = replace(
        rendered,
        text=np.frombuffer(text, dtype=np.uint8),
        text_offsets=offsets,
        spans=moved(spans) - offsets[owners][:, None],
    )
    return replaced, owners[inside.any(axis=1)]
