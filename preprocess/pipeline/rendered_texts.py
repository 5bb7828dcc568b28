"""Texts with spans in characters, as templates give them, to a batch with spans in bytes, and back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import prefix_sums
from sft_shards.formats.templates import Span, TrainedText
from sft_shards.preprocess.pipeline.batch import NO_SPANS, Notes, Reject, RenderedBatch, TrainedTurns

LONGEST_OPENING = 64
"""Characters of a text that are noted as its opening; no control token is longer."""


def as_batch(
    records: list[int],
    trained: list[TrainedText],
    digests: list[bytes],
    rejects: list[Reject],
    notes: Notes,
    *,
    unrolled: bool = False,
) -> RenderedBatch:
    """Put texts with their trained spans into one batch, characters becoming bytes.

    Args:
        records: the record number of each text, in order.
        digests: one for each text, or none.
        unrolled: whether a record may have several texts, and so the batch says which turns each trains.
    """
    raw = [one.rendering.text.encode() for one in trained]
    spans = [_in_bytes(text, one.spans) for text, one in zip(raw, trained, strict=True)]
    typed = [_in_bytes(text, one.rendering.typed) for text, one in zip(raw, trained, strict=True)]
    return RenderedBatch(
        records=np.asarray(records, dtype=np.int64),
        text=np.frombuffer(b"".join(raw), dtype=np.uint8),
        text_offsets=_offsets(raw),
        openings=frozenset(one.rendering.text[:LONGEST_OPENING] for one in trained),
        spans=np.concatenate([NO_SPANS, *spans]),
        span_offsets=_offsets(spans),
        typed=np.concatenate([NO_SPANS, *typed]),
        typed_offsets=_offsets(typed),
        digests=np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16),
        rejects=rejects,
        notes=notes,
        turns=TrainedTurns.of([one.turns for one in trained]) if unrolled else None,
    )


def _offsets(parts: list[bytes] | list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return prefix_sums(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))


def _in_bytes(raw: bytes, spans: tuple[Span, ...] | list[Span]) -> NDArray[np.int64]:
    """Return int64[s, 2]: spans in characters of a text as spans in bytes of its UTF-8.

    In "naïve" the span (2, 4), "ïv", is [2, 5): the characters begin at bytes 0, 1, 2, 4 and 5.
    """
    characters = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    return characters if raw.isascii() or not len(characters) else character_starts(raw)[characters]


def character_starts(raw: bytes) -> NDArray[np.int64]:
    """Return int64[characters + 1]: the byte at which each character of a UTF-8 text begins, and the text's length."""
    values = np.frombuffer(raw, dtype=np.uint8)
    return np.append(np.flatnonzero((values & 0xC0) != 0x80), len(values))


def text_strings(rendered: RenderedBatch) -> list[tuple[str, list[Span], list[Span]]]:
    """Return each text with its trained spans and its typed control tokens in characters."""
    out = []
    spans, typed = rendered.span_offsets.tolist(), rendered.typed_offsets.tolist()
    for row, (start, end) in enumerate(pairwise(rendered.text_offsets.tolist())):
        raw = rendered.text[start:end].tobytes()
        own_spans = _in_characters(raw, rendered.spans[spans[row] : spans[row + 1]])
        own_typed = _in_characters(raw, rendered.typed[typed[row] : typed[row + 1]])
        out.append((raw.decode(), own_spans, own_typed))
    return out


def _in_characters(raw: bytes, spans: NDArray[np.int64]) -> list[Span]:
    """Turn spans in bytes into spans in characters; `_in_bytes` the other way round."""
    characters = spans if raw.isascii() else np.searchsorted(character_starts(raw), spans)
    return [(start, end) for start, end in characters.tolist()]
