"""The short cut from records to roles and texts: a stretch of them is read at once, by Arrow, which is fast and strict.

Arrow reads all of them or none. What it refuses is halved until it is read, or one record is left: that one is for the
slow parser, which says why. Nothing is skipped that could matter: a field is either read, or said to be null (and then
a value in it is refused), or none of those that make a record more than roles and texts.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np

from formats.conversation import Plain, Shape, sums
from formats.errors import RecordError
from formats.records import FieldMap, Layout, PlainFormat
from preprocess.sources import Records, Rows, Texts, parse

if TYPE_CHECKING:
    import pyarrow as pa

DEPTH = 64
"""Arrays and objects inside of each other that every parser takes."""
INFINITY = re.compile(rb"[:,\[]\s*-?Inf\s*[,\]}]")


def read_plain(format_: PlainFormat, records: Records, fields: FieldMap) -> Plain:
    """What a format finds plain among records."""
    if isinstance(records, Rows):
        return _joined([(0, format_.plain(records.batch, fields))])
    if not isinstance(records, Texts):
        return _joined([])
    found: list[tuple[int, Plain | None]] = []
    left = [(0, len(records))] if len(records) else []
    while left:
        begin, end = left.pop()
        plain = _together(format_, records, begin, end, fields)
        if plain is not None:
            found.append((begin, plain))
        elif end - begin > 1:
            middle = (begin + end) // 2
            left += [(middle, end), (begin, middle)]
    return _joined(found)


def _together(format_: PlainFormat, records: Texts, begin: int, end: int, fields: FieldMap) -> Plain | None:
    """What is plain among the texts from one place to another; None if it cannot be told for all at once."""
    first = parse(records.some([begin])[0])
    layout = None if isinstance(first, RecordError) else format_.layout(first, fields)
    if layout is None or not _are_whole(records, begin, end, layout):
        return None
    raw: bytes | memoryview = memoryview(records.raw)[records.begins[begin] : records.ends[end - 1]]
    if layout.key:
        name = json.dumps(layout.key).encode()
        raw = b"\n".join([b"".join([b"{", name, b":", text, b"}"]) for text in records.some(range(begin, end))])
    batch = None if layout.strict is None else _read(raw, layout.strict, "error")
    if batch is None and layout.tolerant is not None and _is_tame(records, begin, end):
        batch = _read(raw, layout.tolerant, "ignore")
    return None if batch is None or batch.num_rows != end - begin else format_.plain(batch, fields)


def _are_whole(records: Texts, begin: int, end: int, layout: Layout) -> bool:
    """Whether each text is one object, or all of them together are no JSON at all.

    Each begins with an opening brace and ends with a closing one, and nowhere inside of a JSON text may one brace
    follow the other with white space between: so each holds one object or more, and if as many objects are read as
    there are texts, each holds one. A bare value is put between braces by us; then no field is let be, so that it
    cannot be more than a value.
    """
    if not layout.key:
        return records.enclosed(begin, end, b"{", b"}")
    return records.enclosed(begin, end, b"[", b"]") or records.enclosed(begin, end, b'"', b'"')


def _is_tame(records: Texts, begin: int, end: int) -> bool:
    """Whether nothing in fields that are let be could be taken by Arrow and not by the slow parser: deep nesting (for
    which brackets in texts are taken too), and infinity as no other parser spells it."""
    values = np.frombuffer(records.raw, dtype=np.uint8)[: records.ends[end - 1]]
    braces = values | np.uint8(0x20)  # which makes braces of brackets
    places = np.flatnonzero((braces == ord("{")) | (braces == ord("}")))
    depths = sums(np.where(braces[places] == ord("{"), 1, -1))
    first = np.searchsorted(places, np.append(records.begins[begin:end], len(values)))
    above = depths[1:][first[0] :] - np.repeat(depths[first[:-1]], np.diff(first))
    return bool((above <= DEPTH).all()) and not INFINITY.search(records.raw, records.begins[begin], len(values))


def _read(raw: bytes | memoryview, schema: pa.Schema, unexpected: str) -> pa.RecordBatch | None:
    """The objects of a JSON text; None where it is none, is not UTF-8, or has something else than the schema says."""
    import pyarrow as pa
    import pyarrow.json

    text, bounds = pa.py_buffer(raw), pa.py_buffer(np.asarray([0, len(raw)], dtype=np.int32))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, bounds, text]).validate(full=True)
        table = pyarrow.json.read_json(
            pa.BufferReader(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(raw) + 1),
            pyarrow.json.ParseOptions(schema, newlines_in_values=True, unexpected_field_behavior=unexpected),
        )
    except pa.ArrowInvalid:
        return None
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return batches[0] if batches else None


def _joined(found: list[tuple[int, Plain | None]]) -> Plain:
    """Several stretches as one, with the place that each begins at."""
    import pyarrow as pa

    parts = [(begin, plain) for begin, plain in found if plain is not None]
    if len(parts) == 1:
        begin, plain = parts[0]
        return plain._replace(rows=plain.rows + begin)
    none = np.zeros(0, dtype=np.int64)
    kinds: list[Shape] = []
    for _, plain in parts:
        kinds += plain.kinds
    bounds = sums(np.asarray([len(plain.kinds) for _, plain in parts], dtype=np.int64))
    return Plain(
        np.concatenate([none, *(plain.rows + begin for begin, plain in parts)]),
        kinds,
        np.concatenate([none, *(plain.numbers + base for base, (_, plain) in zip(bounds, parts, strict=False))]),
        pa.concat_arrays([plain.texts for _, plain in parts] or [pa.array([], pa.string())]),
    )
