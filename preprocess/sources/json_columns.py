"""JSON texts read into Arrow columns by pyarrow's JSON reader, which is fast and strict.

The reader knows nothing of record formats: a function looks at one parsed record and says with which schemas records
like it are read. pyarrow reads all texts of a call or none. So a call that fails is repeated with fewer texts until
every text that can be read this way has been; the others are left to whoever reads records one by one.

pyarrow must never accept what `json.loads` refuses, nor read another value. Hence the two checks before it: a field
is either read, or has type null in the schema (then a value in it is an error), or is ignored (then what stands in it
must be JSON for every parser).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.columnar import prefix_sums
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import JsonSchemas
from sft_shards.preprocess.sources.json_fields import NotJsonError, json_fields
from sft_shards.preprocess.sources.json_rewriting import with_objects_as_texts, with_texts_as_parts
from sft_shards.preprocess.sources.raw_records import JsonBatch

if TYPE_CHECKING:
    import pyarrow as pa

SchemasFor = Callable[[Any], JsonSchemas | None]
"""Returns the schemas for records like a given one, or None where it cannot be read as columns."""

NEAR = 256
"""Texts that are read together after an unsupported one. Where another is among them, each is looked at first."""
GROWTH = 4
"""How many times more texts are read together after each success."""
MAX_DEPTH = 64
"""Nesting of arrays and objects that every JSON parser accepts."""
INFINITY = re.compile(rb"Inf\s*[,\]}]")
"""A spelling of infinity that pyarrow accepts and no other parser; a text that holds it is taken for it too."""
FAILED_ROW = re.compile(r" in row (\d+)")
"""How pyarrow's error messages name the row at which it stopped."""


@dataclass(frozen=True, kw_only=True)
class ColumnChunk:
    """Some records as columns."""

    rows: Sequence[int]
    """Which records of the batch these are, rising; row i of `columns` is record `rows[i]`."""
    columns: pa.RecordBatch
    """A column for each field of the schema; null where a record has no such field."""


def read_columns(texts: JsonBatch, schemas_for: SchemasFor) -> Iterator[ColumnChunk]:
    """Read JSON texts into columns, as many together as can be, in order.

    Yields:
        Chunks without the texts that cannot be read this way: those that are not JSON, for which `schemas_for` has no
        schemas, or that do not match the schemas of the texts around them even when they are tried alone.
    """
    return _Reading(texts, schemas_for).chunks()


def failed_row(message: str) -> int | None:
    """Return the row at which pyarrow stopped, by its error message; None if the message does not say.

    This saves halving the texts to find that row. If pyarrow words its messages differently, reading is slower where
    there are unsupported records, and its results are the same.

    >>> failed_row("JSON parse error: Column(/a) changed from string to number in row 7")
    7
    """
    found = FAILED_ROW.search(message)
    return int(found[1]) if found else None


class _Unsupported(Exception):  # noqa: N818 - control flow within this file
    """Texts that cannot be read together.

    Args:
        position: of one text, among those that were tried, without which the texts before it may be readable; None
            if it is not known which text it is.
    """

    def __init__(self, position: int | None) -> None:
        self.position = position


class _Reading:
    """Reads the texts of one batch."""

    def __init__(self, texts: JsonBatch, schemas_for: SchemasFor) -> None:
        self._texts, self._schemas_for = texts, schemas_for
        self._objects: frozenset[str] = frozenset()
        """`JsonSchemas.objects` of all records that were looked at."""
        self._parts_key = ""
        """`JsonSchemas.parts_key` of a record that was looked at."""
        self._try_strict = True
        """Whether to try the strict schema first. It is faster where it matches, and does not name the failed row."""

    def chunks(self) -> Iterator[ColumnChunk]:
        """Read all texts; after an unsupported one only some together, since there may be others near it."""
        begin, count = 0, len(self._texts)
        while begin < len(self._texts):
            rows = range(begin, min(begin + count, len(self._texts)))
            begin, count = rows.stop, GROWTH * count
            try:
                chunk = self._read_together(rows)
            except _Unsupported as unsupported:
                self._try_strict = False
                count = NEAR
                if len(rows) <= NEAR:
                    yield from self._look_then_read(rows)
                else:
                    begin = rows.start + (unsupported.position or 0)
                    yield from self._bisect(range(rows.start, begin))
            else:
                yield chunk

    def _look_then_read(self, rows: Sequence[int]) -> Iterator[ColumnChunk]:
        """Parse each text first; then read those together that have schemas, as far as they follow each other."""
        looked_at = [(row, schemas) for row in rows if (schemas := self._schemas(row)) is not None]
        for _, alike in groupby(looked_at, key=lambda one: (one[1].value_field, id(one[1].tolerant))):
            yield from self._bisect([row for row, _ in alike])

    def _bisect(self, rows: Sequence[int]) -> Iterator[ColumnChunk]:
        """Read all of some texts but the unsupported ones: what fails is split at the failed text, or halved."""
        stack = [rows]
        while stack:
            some = stack.pop()
            if not some:
                continue
            try:
                chunk = self._read_together(some)
            except _Unsupported as unsupported:
                at = unsupported.position
                if at is not None:
                    stack += [some[at + 1 :], some[:at]]
                elif len(some) > 1:
                    stack += [some[len(some) // 2 :], some[: len(some) // 2]]
            else:
                yield chunk

    def _schemas(self, row: int) -> JsonSchemas | None:
        value = next(self._texts.values([row]))
        schemas = None if isinstance(value, RecordError) else self._schemas_for(value)
        if schemas is None:
            self._texts.keep(row, value)  # it is read one by one
        else:
            self._objects |= schemas.objects
            self._parts_key = self._parts_key or schemas.parts_key
            if self._parts_key:
                schemas = schemas.in_parts or schemas
        return schemas

    def _read_together(self, rows: Sequence[int]) -> ColumnChunk:
        """Read some texts in one call, with the schemas of the first.

        Raises:
            _Unsupported: not all of them can be read so.
        """
        schemas = self._schemas(rows[0])
        if schemas is None:
            raise _Unsupported(0)
        texts = self._texts.take(rows)
        _check_enclosed(texts, schemas)
        raw = texts.raw
        if schemas.value_field:
            name = json.dumps(schemas.value_field).encode()
            values = texts.texts(range(len(texts)))
            raw = b"\n".join([b"".join([b"{", name, b":", value, b"}"]) for value in values])
        for key in sorted(self._objects):
            raw = with_objects_as_texts(raw, key)
        if self._parts_key:
            raw = with_texts_as_parts(raw, self._parts_key)
        columns = position = None
        if schemas.strict is not None and (self._try_strict or schemas.tolerant is None):
            columns, position = _read_json(raw, schemas.strict, "error")
        names: tuple[str, ...] = ()
        if columns is None and schemas.tolerant is not None:
            _check_ignored_fields(texts)
            names = schemas.json_fields
            columns, position = _read_json(raw, schemas.tolerant, "ignore")
        if columns is None or columns.num_rows != len(texts):
            raise _Unsupported(position if position is not None and position < len(texts) else None)
        for field in names:
            try:
                found = json_fields(texts, field)
            except NotJsonError as error:
                raise _Unsupported(error.row) from None
            if found is not None:
                columns = columns.append_column(field, found)
        return ColumnChunk(rows=rows, columns=columns)


def _check_enclosed(texts: JsonBatch, schemas: JsonSchemas) -> None:
    """Make sure that each text is one object, or that all of them together are not JSON.

    pyarrow reads a stream of objects and cares for no borders between texts: `{"a": 1} {"a": 2}` on one line and
    `{"a":` before `3}` on the next two would be three objects in three lines. If each text begins with an opening
    brace and ends with a closing one, no object can run from one text into the next, because no JSON text has a
    closing brace followed by an opening one inside. So each text holds one object or more, and if as many objects are
    read as there are texts, each holds exactly one.

    A bare value (a list or a string) is put between braces by the caller. Its schema is strict, so that it cannot hold
    more than a value.
    """
    opening = texts.raw[texts.begins[0]]
    closing = {ord("{"): ord("}"), ord("["): ord("]")}.get(opening, opening)
    if bool(schemas.value_field) == (opening == ord("{")):
        raise _Unsupported(0)
    values = np.frombuffer(texts.raw, dtype=np.uint8)
    first = values[np.minimum(texts.begins, len(values) - 1)]
    different = (texts.ends - texts.begins < 2) | (first != opening) | (values[texts.ends - 1] != closing)
    if different.any():
        raise _Unsupported(int(different.argmax()))


def _check_ignored_fields(texts: JsonBatch) -> None:
    """Make sure that ignored fields hold nothing that pyarrow accepts and `json.loads` refuses.

    That is deep nesting (brackets within strings are counted too) and a spelling of infinity.
    """
    braces = np.frombuffer(texts.raw, dtype=np.uint8) | np.uint8(0x20)  # turns [ ] into { }
    places = np.flatnonzero((braces == ord("{")) | (braces == ord("}")))
    depths = prefix_sums(np.where(braces[places] == ord("{"), 1, -1))
    first = np.append(np.searchsorted(places, texts.begins), len(places))  # the first brace of each text
    deep = np.flatnonzero(depths[1:] - np.repeat(depths[first[:-1]], np.diff(first)) > MAX_DEPTH)
    if len(deep):
        raise _Unsupported(int(np.searchsorted(first, deep[0], side="right")) - 1)
    if found := INFINITY.search(texts.raw):
        raise _Unsupported(int(np.searchsorted(texts.begins, found.start(), side="right")) - 1)


def _read_json(
    raw: bytes | memoryview, schema: pa.Schema, unexpected_fields: str
) -> tuple[pa.RecordBatch | None, int | None]:
    """Read a stream of JSON objects.

    Returns:
        The columns, or None where the bytes are not JSON, are not UTF-8 or do not match the schema; then also the
        position of the object at which pyarrow stopped, if it is known.
    """
    import pyarrow as pa
    import pyarrow.json

    text, offsets = pa.py_buffer(raw), pa.py_buffer(np.asarray([0, len(raw)], dtype=np.int32))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, text]).validate(full=True)  # UTF-8
        table = pyarrow.json.read_json(
            pa.BufferReader(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(raw) + 1),
            pyarrow.json.ParseOptions(schema, newlines_in_values=True, unexpected_field_behavior=unexpected_fields),
        )
    except pa.ArrowInvalid as error:
        return None, failed_row(str(error))
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return (batches[0] if batches else None), None
