"""The short cut from records to roles and texts: a stretch of them is read at once, by Arrow, which is fast and strict.

Arrow reads all of them or none. Where it says which one it stopped at, that one is for the slow parser, which says why,
and the others are read without it; where it does not, they are halved. Nothing is skipped that could matter: a field is
either read, or said to be null (and then a value in it is refused), or none of those that make a record more than roles
and texts.
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
INFINITY = re.compile(rb"Inf\s*[,\]}]")
"""With a word at its beginning, which is looked for fast; a text that holds it is taken for one too."""
ROW = re.compile(r" in row (\d+)")
"""How Arrow says where it stopped."""
NEAR = 64
"""Texts that are tried together, at least, after an odd one."""


def read_plain(format_: PlainFormat, records: Records, fields: FieldMap) -> Plain:
    """What a format finds plain among records."""
    if isinstance(records, Rows):
        return _joined([(0, format_.plain(records.batch, fields))])
    if not isinstance(records, Texts):
        return _joined([])
    found: list[tuple[int, Plain | None]] = []
    left, reach, strict = [(0, len(records))], len(records), True
    while left:
        begin, stop = left.pop()
        end = min(stop, begin + reach)
        if begin == end:
            continue
        left.append((end, stop))
        try:
            found.append((begin, _together(format_, records, begin, end, fields, strict=strict)))
            reach *= 4
        except _Odd as odd:
            strict = False  # which does not say where
            if odd.place is None:
                odd.place = (begin + end) // 2
                left.append((odd.place, end) if end - begin > 1 else (end, end))
            else:
                left.append((odd.place + 1, end))
            left.append((begin, odd.place))
            reach = max(NEAR, 2 * (odd.place - begin))
    return _joined(found)


class _Odd(Exception):  # noqa: N818 - control flow, never seen outside
    """Texts that cannot be read together.

    Args:
        place: one without which the others may be; None where nobody can tell which it is.
    """

    def __init__(self, place: int | None) -> None:
        self.place = place


def _together(
    format_: PlainFormat, records: Texts, begin: int, end: int, fields: FieldMap, *, strict: bool
) -> Plain | None:
    """What is plain among the texts from one place to another; `_Odd` if it cannot be told for all at once.

    Args:
        strict: whether to see first if they have no other fields, which is faster where it is so.
    """
    first = parse(records.some([begin])[0])
    layout = None if isinstance(first, RecordError) else format_.layout(first, fields)
    if layout is None:
        raise _Odd(begin)
    _check_whole(records, begin, end, layout)
    raw: bytes | memoryview = memoryview(records.raw)[records.begins[begin] : records.ends[end - 1]]
    if layout.key:
        name = json.dumps(layout.key).encode()
        raw = b"\n".join([b"".join([b"{", name, b":", text, b"}"]) for text in records.some(range(begin, end))])
    batch = row = None
    if layout.strict is not None and (strict or layout.tolerant is None):
        batch, row = _read(raw, layout.strict, "error")
    if batch is None and layout.tolerant is not None:
        _check_tame(records, begin, end)
        batch, row = _read(raw, layout.tolerant, "ignore")
    if batch is None or batch.num_rows != end - begin:
        raise _Odd(begin + row if row is not None and begin + row < end else None)
    return format_.plain(batch, fields)


def _check_whole(records: Texts, begin: int, end: int, layout: Layout) -> None:
    """See that each text is one object, or all of them together are no JSON at all.

    Each begins with an opening brace and ends with a closing one, and nowhere inside of a JSON text may one brace
    follow the other with white space between: so each holds one object or more, and if as many objects are read as
    there are texts, each holds one. A bare value is put between braces by us; then no field is let be, so that it
    cannot be more than a value.
    """
    first = records.raw[records.begins[begin]]
    closing = {ord("{"): ord("}"), ord("["): ord("]")}.get(first, first)
    other = records.other(begin, end, first, closing)
    if bool(layout.key) == (first == ord("{")):
        raise _Odd(begin)
    if other is not None:
        raise _Odd(other)


def _check_tame(records: Texts, begin: int, end: int) -> None:
    """See that nothing in fields that are let be could be taken by Arrow and not by the slow parser: deep nesting (for
    which brackets in texts are taken too), and infinity as no other parser spells it."""
    start, stop = records.begins[begin], records.ends[end - 1]
    values = np.frombuffer(records.raw, dtype=np.uint8)[start:stop]
    braces = values | np.uint8(0x20)  # which makes braces of brackets
    places = np.flatnonzero((braces == ord("{")) | (braces == ord("}")))
    depths = sums(np.where(braces[places] == ord("{"), 1, -1))
    first = np.searchsorted(places, np.append(records.begins[begin:end] - start, len(values)))
    deep = np.flatnonzero(depths[1:] - np.repeat(depths[first[:-1]], np.diff(first)) > DEPTH)
    if len(deep):
        raise _Odd(begin + int(np.searchsorted(first, deep[0], side="right")) - 1)
    if found := INFINITY.search(records.raw, start, stop):
        raise _Odd(begin + int(np.searchsorted(records.begins[begin:end], found.start(), side="right")) - 1)


def _read(raw: bytes | memoryview, schema: pa.Schema, unexpected: str) -> tuple[pa.RecordBatch | None, int | None]:
    """The objects of a JSON text; None where it is none, is not UTF-8, or has something else than the schema says, with
    the number of the object in which that is, if it is known."""
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
    except pa.ArrowInvalid as error:
        found = ROW.search(str(error))
        return None, int(found[1]) if found else None
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return (batches[0] if batches else None), None


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
