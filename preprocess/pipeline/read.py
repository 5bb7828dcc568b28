"""The short cut from records to roles and texts: a stretch of them is read at once, by Arrow, which is fast and strict.

Arrow reads all of them or none. Where it says which one it stopped at, that one is for the slow parser, which says why,
and the others are read without it; where it does not, they are halved. Nothing is skipped that could matter: a field is
either read, or said to be null (and then a value in it is refused), or none of those that make a record more than roles
and texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from sft_shards.formats.columnar import RoleSequence, TextOnlyConversations, prefix_sums
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import ColumnarFormat, FieldMap, JsonSchemas
from sft_shards.preprocess.sources import JsonBatch, RawBatch, TableBatch

if TYPE_CHECKING:
    import pyarrow as pa

DEPTH = 64
"""Arrays and objects inside of each other that every parser takes."""
INFINITY = re.compile(rb"Inf\s*[,\]}]")
"""With a word at its beginning, which is looked for fast; a text that holds it is taken for one too."""
ROW = re.compile(r" in row (\d+)")
"""How Arrow says where it stopped."""
NEAR = 256
"""Texts that are tried together after an odd one; where another is among them, each is looked at by itself first."""


def read_plain(format_: ColumnarFormat, records: RawBatch, fields: FieldMap) -> TextOnlyConversations:
    """What a format finds plain among records."""
    if isinstance(records, TableBatch):
        return _joined([(range(len(records)), format_.read_columns(records.columns, fields))])
    if not isinstance(records, JsonBatch):
        return _joined([])
    reading = _Reading(format_, records, fields)
    reading.read()
    return _joined(reading.found)


class _Odd(Exception):  # noqa: N818 - control flow, never seen outside
    """Texts that cannot be read together.

    Args:
        place: of one without which the others may be; None where nobody can tell which it is.
    """

    def __init__(self, place: int | None) -> None:
        self.place = place


class _Reading:
    """Reads texts, as many together as can be.

    Attributes:
        found: places, rising, and what is plain of the texts there.
    """

    def __init__(self, format_: ColumnarFormat, records: JsonBatch, fields: FieldMap) -> None:
        self.found: list[tuple[Sequence[int], TextOnlyConversations | None]] = []
        self._format, self._records, self._fields = format_, records, fields
        self._strict = True
        """Whether to see first if records have no other fields, which is faster where it is so."""

    def read(self) -> None:
        """Read all of them; behind an odd one only some at once, for there may be others."""
        begin, reach = 0, len(self._records)
        while begin < len(self._records):
            places = range(begin, min(begin + reach, len(self._records)))
            begin, reach = places.stop, 4 * reach
            try:
                self._together(places)
            except _Odd as odd:
                self._strict = False  # which does not say where
                reach = NEAR
                if len(places) <= NEAR:
                    self._sift(places)
                else:
                    begin = places.start + (odd.place or 0)
                    self._settle(range(places.start, begin))

    def _sift(self, places: Sequence[int]) -> None:
        """Read those of them that are plain by themselves, as far as they look alike."""
        looks = [(at, layout) for at in places if (layout := self._layout(at)) is not None]
        for _, alike in groupby(looks, key=lambda one: (one[1].value_field, id(one[1].tolerant))):
            self._settle([at for at, _ in alike])

    def _settle(self, places: Sequence[int]) -> None:
        """Read some of them, without those that turn out to be odd; halved where nobody can tell which."""
        left = [places]
        while left:
            some = left.pop()
            try:
                if some:
                    self._together(some)
            except _Odd as odd:
                if odd.place is not None:
                    left += [some[odd.place + 1 :], some[: odd.place]]
                elif len(some) > 1:
                    left += [some[len(some) // 2 :], some[: len(some) // 2]]

    def _layout(self, place: int) -> JsonSchemas | None:
        value = next(self._records.values([place]))
        return None if isinstance(value, RecordError) else self._format.json_schemas(value, self._fields)

    def _together(self, places: Sequence[int]) -> None:
        """Read some at once; `_Odd` if one cannot tell of all what is plain."""
        layout = self._layout(places[0])
        if layout is None:
            raise _Odd(0)
        part = self._records.take(places)
        _check_whole(part, layout)
        raw = part.raw
        if layout.value_field:
            name = json.dumps(layout.value_field).encode()
            raw = b"\n".join([b"".join([b"{", name, b":", text, b"}"]) for text in part.texts(range(len(part)))])
        batch = row = None
        if layout.strict is not None and (self._strict or layout.tolerant is None):
            batch, row = _read(raw, layout.strict, "error")
        if batch is None and layout.tolerant is not None:
            _check_tame(part)
            batch, row = _read(raw, layout.tolerant, "ignore")
        if batch is None or batch.num_rows != len(part):
            raise _Odd(row if row is not None and row < len(part) else None)
        self.found.append((places, self._format.read_columns(batch, self._fields)))


def _check_whole(texts: JsonBatch, layout: JsonSchemas) -> None:
    """See that each text is one object, or all of them together are no JSON at all.

    Each begins with an opening brace and ends with a closing one, and nowhere inside of a JSON text may one brace
    follow the other with white space between: so each holds one object or more, and if as many objects are read as
    there are texts, each holds one. A bare value is put between braces by us; then no field is let be, so that it
    cannot be more than a value.
    """
    first = texts.raw[texts.begins[0]]
    closing = {ord("{"): ord("}"), ord("["): ord("]")}.get(first, first)
    if bool(layout.value_field) == (first == ord("{")):
        raise _Odd(0)
    other = _other_enclosure(texts, first, closing)
    if other is not None:
        raise _Odd(other)


def _other_enclosure(texts: JsonBatch, opening: int, closing: int) -> int | None:
    """Return the row of the first text that does not begin and end with certain bytes."""
    values = np.frombuffer(texts.raw, dtype=np.uint8)
    inside = np.minimum(texts.begins, len(values) - 1)
    other = (texts.ends - texts.begins < 2) | (values[inside] != opening) | (values[texts.ends - 1] != closing)
    return int(other.argmax()) if other.any() else None


def _check_tame(texts: JsonBatch) -> None:
    """See that nothing in fields that are let be could be taken by Arrow and not by the slow parser: deep nesting (for
    which brackets in texts are taken too), and infinity as no other parser spells it."""
    braces = np.frombuffer(texts.raw, dtype=np.uint8) | np.uint8(0x20)  # which makes braces of brackets
    places = np.flatnonzero((braces == ord("{")) | (braces == ord("}")))
    depths = prefix_sums(np.where(braces[places] == ord("{"), 1, -1))
    first = np.append(np.searchsorted(places, texts.begins), len(places))
    deep = np.flatnonzero(depths[1:] - np.repeat(depths[first[:-1]], np.diff(first)) > DEPTH)
    if len(deep):
        raise _Odd(int(np.searchsorted(first, deep[0], side="right")) - 1)
    if found := INFINITY.search(texts.raw):
        raise _Odd(int(np.searchsorted(texts.begins, found.start(), side="right")) - 1)


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


def _joined(found: list[tuple[Sequence[int], TextOnlyConversations | None]]) -> TextOnlyConversations:
    """What is plain of several stretches as one, rows being places in all."""
    import pyarrow as pa

    parts = [(np.asarray(places, dtype=np.int64), plain) for places, plain in found if plain is not None]
    if len(parts) == 1:
        places, plain = parts[0]
        return replace(plain, rows=places[plain.rows])
    none = np.zeros(0, dtype=np.int64)
    kinds: list[RoleSequence] = []
    for _, plain in parts:
        kinds += plain.role_sequences
    bounds = prefix_sums(np.asarray([len(plain.role_sequences) for _, plain in parts], dtype=np.int64))
    return TextOnlyConversations(
        rows=np.concatenate([none, *(places[plain.rows] for places, plain in parts)]),
        role_sequences=kinds,
        sequence_ids=np.concatenate(
            [none, *(plain.sequence_ids + first for first, (_, plain) in zip(bounds, parts, strict=False))]
        ),
        texts=pa.concat_arrays([plain.texts for _, plain in parts] or [pa.array([], pa.string())]),
    )
