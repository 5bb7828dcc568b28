"""The short cut for records that are nothing but roles and texts: many of them as columns, looked at at once.

A record costs some microseconds when Python looks at it, and next to nothing among others in Arrow's columns, which is
how Parquet has them and how Arrow reads JSON. A format says which columns its plain records have (`Layout`), and what
it makes of them; whatever is not certain from the columns alone is left to `RecordFormat.read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.conversation import Plain, Shape, sums, utf8
from sft_shards.formats.records.fields import BESIDE, SYSTEM, FieldMap

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN_ROLES = frozenset({"system", "user", "assistant", "tool"})
NO_TEXT = ("history",)
"""Fields in which even an empty text is an error."""
SHORT, LONG = 7, np.uint64(0xFF << 56)
"""Codes that fit into a number beside how many they are; the numbers from here on stand for more of them."""
LEADING, UNKNOWN = 254, 255
"""Stand for the role of a system prompt beside the conversation, and for one that is never plain."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How JSON records that look like one of them are read into columns."""

    strict: pa.Schema | None
    """The fields that they have if they have no other, not even inside; None where the one that was seen has more."""
    tolerant: pa.Schema | None
    """The same, and with the type null those that may have no value; fields that are not named here are let be. None
    where every field has to be known."""
    key: str = ""
    """Where a record is a bare value: the name of the field that it is put into."""


Kind = str | tuple[tuple[str, str], ...]
"""Of a field: `TEXT`, `NULL`, `NULLS` (a list without items), or a list of messages by the kinds of their fields."""
TEXT, NULL, NULLS = "text", "null", "nulls"


@lru_cache(maxsize=1024)
def schema(fields: tuple[tuple[str, Kind], ...]) -> pa.Schema:
    """Arrow's schema for fields of certain kinds."""
    import pyarrow as pa

    kinds = {TEXT: pa.string(), NULL: pa.null(), NULLS: pa.list_(pa.null())}

    def typed(kind: Kind) -> pa.DataType:
        return kinds[kind] if isinstance(kind, str) else pa.list_(pa.struct([(key, kinds[one]) for key, one in kind]))

    return pa.schema([(name, typed(kind)) for name, kind in fields])


def layout(
    record: Mapping[str, Any], strict: Mapping[str, Kind], tolerant: Mapping[str, Kind], barred: Iterable[str]
) -> Layout | None:
    """The layout of records like this one.

    Args:
        strict: the kind of each field that a plain record has, if nothing is in it that it need not have.
        tolerant: the same, if other things may be in it.
        barred: names of other fields that a plain record has no value in, beside those in `BESIDE`.

    Returns:
        None where this one is not plain itself.
    """
    others: dict[str, Kind] = {**dict.fromkeys((*BESIDE, *barred), NULL), **dict.fromkeys(SYSTEM, TEXT)}
    for name in record.keys() & others.keys() - strict.keys():
        value = record[name]
        if value and name not in SYSTEM:
            return None
        others[name] = TEXT if value == "" or name in SYSTEM else NULLS if value == [] else NULL
    known = record.keys() <= strict.keys()
    return Layout(
        strict=schema(tuple(strict.items())) if known else None, tolerant=schema(tuple({**others, **tolerant}.items()))
    )


def all_columns(batch: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    """Those of several columns that are there, in this order."""
    return [batch.column(place) for name in names for place in batch.schema.get_all_field_indices(name)]


def pick(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array | None:
    """The first of several columns that is there and has a value. Where it has none for a row, a later one may."""
    found = (column for column in all_columns(batch, names) if column.null_count < batch.num_rows)
    return next(found, None)


def as_texts(column: pa.Array) -> pa.StringArray | None:
    """A column of texts as Arrow's plain kind of it, nulls included; None for other columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column if pa.types.is_string(column.type) else None


def valid(column: pa.Array) -> NDArray[np.bool_]:
    """bool[n]: where a column has a value."""
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    found: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def are_bare(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """bool[n]: which records have neither tools, earlier rounds nor media, for certain."""
    bare = np.ones(batch.num_rows, dtype=bool)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in BESIDE and column.null_count < len(column):
            texts = as_texts(column)
            if texts is not None and name not in NO_TEXT:
                bare &= ~filled(texts)
            elif is_list(column.type):
                bare &= column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) == 0
            else:
                bare &= ~valid(column)
    return bare


def texts_in(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[pa.StringArray, NDArray[np.bool_]]:
    """What records have in the first of several columns that is not null for them, as texts, and bool[n] where that is
    certain: where none of the columns holds anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [(column, as_texts(column)) for column in all_columns(batch, names)]
    texts = [found for _, found in columns if found is not None]
    certain = np.ones(batch.num_rows, dtype=bool)
    for column, found in columns:
        if found is None:
            certain &= ~valid(column)
    return pc.coalesce(*texts) if texts else pa.nulls(batch.num_rows, pa.string()), certain


def filled(texts: pa.StringArray) -> NDArray[np.bool_]:
    """bool[n]: where there is a text, and it is not empty."""
    return valid(texts) & (np.diff(utf8(texts)[1]) > 0)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of any length."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def taken(texts: Sequence[pa.StringArray], places: NDArray[np.int64]) -> pa.StringArray:
    """Some of the texts of several columns, counted through, in any order, with no gaps in between."""
    import pyarrow as pa

    return pa.concat_arrays(texts).take(pa.array(places))


def cut_out(values: NDArray[np.uint8], begins: NDArray[Any], ends: NDArray[Any]) -> pa.StringArray:
    """Stretches of a text in UTF-8, in order and apart, as texts with no gaps in between."""
    import pyarrow as pa

    cuts = np.stack([begins, ends], axis=1).astype(np.int32).reshape(-1)
    buffers = [None, pa.py_buffer(cuts), pa.py_buffer(values)]
    pieces = pa.Array.from_buffers(pa.string(), max(len(cuts) - 1, 0), buffers)
    return pieces.take(pa.array(np.arange(0, len(cuts), 2)))


def gathered(
    rows: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    codes: NDArray[np.uint8],
    shapes: Mapping[bytes, Shape | None],
    texts: pa.StringArray,
) -> Plain:
    """The conversations of those rows that are plain.

    Args:
        rows: bool[n]: those that may be.
        sizes: int64[n]: the texts of each.
        codes: u8[sum(sizes)]: the role of each text in a byte.
        shapes: by the codes of a conversation, what these are as roles; None for what is not plain.
    """
    import pyarrow as pa

    numbers, kinds = _alike(sizes, codes)
    known = [shapes[one] for one in kinds]
    keep = rows & np.asarray([shape is not None for shape in known], dtype=bool)[numbers]
    found = Plain(np.flatnonzero(keep), [shape or () for shape in known], numbers[keep], texts)
    if keep.all():
        return found
    return found._replace(texts=texts.filter(pa.array(np.repeat(keep, sizes))))


def _alike(sizes: NDArray[np.int64], codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[bytes]]:
    """int64[n], which conversations have the same codes, and the different ones: those of up to seven codes as numbers
    of eight bytes, for longer ones there is no short cut."""
    firsts = sums(sizes)
    place = np.arange(len(codes)) - np.repeat(firsts[:-1], sizes)
    totals = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes.astype(np.uint64) << (np.minimum(place, SHORT) * 8).astype(np.uint64), out=totals[1:])
    keys = (totals[firsts[1:]] - totals[firsts[:-1]]) | (sizes.astype(np.uint64) << np.uint64(8 * SHORT))
    raw, bounds = codes.tobytes(), firsts.tolist()
    long: dict[bytes, int] = {}
    for at in np.flatnonzero(sizes > SHORT).tolist():
        keys[at] = LONG + np.uint64(long.setdefault(raw[bounds[at] : bounds[at + 1]], len(long)))
    _, examples, numbers = np.unique(keys, return_index=True, return_inverse=True)
    return numbers, [raw[bounds[at] : bounds[at + 1]] for at in examples.tolist()]


class Shapes(dict[bytes, Shape | None]):
    """What a conversation's roles are, by a byte for each: a place among the names that records have for them.

    Args:
        roles: what the names stand for; None for one that is never plain.
    """

    def __init__(self, roles: Sequence[str | None]) -> None:
        super().__init__()
        self._roles = roles

    def __missing__(self, codes: bytes) -> Shape | None:
        found = ["system" if code == LEADING else None if code == UNKNOWN else self._roles[code] for code in codes]
        shape = tuple(role for role in found if role in PLAIN_ROLES)
        known = shape if len(shape) == len(found) and "assistant" in shape else None
        return self.setdefault(codes, known)


def coded(names: pa.StringArray, fields: FieldMap, known: Mapping[str, str | None]) -> tuple[NDArray[np.uint8], Shapes]:
    """The roles of several turns, by what records call them: u8[t], and what these stand for.

    Args:
        known: a format's own names of roles; those that the user gave come first.
    """
    spelt = names.dictionary_encode()
    places = spelt.indices.fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
    words = spelt.dictionary.to_pylist()
    roles = [fields.roles.get(word) or known.get(word) for word in words[:LEADING]]
    return np.where(places < LEADING, places, UNKNOWN).astype(np.uint8), Shapes(roles)
