"""Arguments of calls in columns: the members of each object are taken apart, all conversations of a batch at once.

Templates that go through the arguments of a call write each member by itself. For these, the label `arguments` and its
JSON make room for labels and texts of the members (see `formats.layouts`). The JSON is as `layouts.json_text` writes
it, with `, ` and `: ` and no other white space, so all borders follow from the places of quotes, brackets and commas.

Conversations stay as they are where a key is blank, where Python prints a number otherwise than JSON (NaN, Infinity),
where a blank text is too long for a label, and where the layout would become too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, number_array, numbers_of, string_array
from sft_shards.formats.columnar import (
    ConversationColumns,
    Layout,
    prefix_sums,
    utf8_buffers,
)
from sft_shards.formats.json_bytes import unescaped_quotes
from sft_shards.formats.layouts import LONGEST_CONSTANT, MOST_LABELS, ORDER, json_text
from sft_shards.formats.records.arrow_columns import slice_texts, take_texts
from sft_shards.preprocess.pipeline.ragged import row_numbers
from sft_shards.preprocess.pipeline.whitespace import are_blank

if TYPE_CHECKING:
    import pyarrow as pa

ARGUMENTS = "arguments"
KINDS = ("value", "value_number", "value_object", "value_list")
CONSTANTS = ("value=true", "value=false", "value=null", "value={}", "value=[]")
BY_FIRST_BYTE = np.full(256, 255, dtype=np.uint8)
"""u8[256]: the position in `KINDS`, and behind them `CONSTANTS`, by the first byte of a value; 255: there is none."""
BY_FIRST_BYTE[list(b'"-{[tfn')] = range(7)
BY_FIRST_BYTE[list(b"0123456789")] = KINDS.index("value_number")
BACKSLASH, COMMA, INFINITY = b"\\,I"
OPENING, CLOSING = b"{[", b"}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Members:
    """The members of some objects, of all one after the other."""

    counts: NDArray[np.int64]
    """int64[a]: how many each object has; none where it is left as it is."""
    codes: NDArray[np.uint8]
    """u8[m]: position of each value's label in `labels`."""
    labels: list[str]
    """`KINDS`, `CONSTANTS`, and blank texts."""
    orders: NDArray[np.int64]
    """int64[a]: position of the order of each object's keys in `order_labels`."""
    order_labels: list[str]
    """"", where there is one member, or the order is not asked for, and labels."""
    texts: pa.StringArray
    """2m texts: the key of each member and its value; of a constant, any text."""


def take_arguments_apart(conversations: ConversationColumns, *, with_order: bool = False) -> ConversationColumns:
    """Return conversations with the members of arguments in the layouts; what has no such layout stays as it is.

    Args:
        with_order: whether the order of the keys is in the layouts, too.
    """
    arguments = conversations.by_label(lambda label: label == ARGUMENTS).astype(bool)
    if not arguments.any():
        return conversations
    found = _members(conversations.texts.filter(bool_array(arguments)), with_order=with_order)
    bounds = conversations.text_offsets
    own = np.searchsorted(bounds, np.flatnonzero(arguments), side="right") - 1
    count = len(conversations.rows)
    lengths = np.asarray([len(layout) for layout in conversations.layouts], dtype=np.int64)[conversations.layout_ids]
    more = 2 * found.counts - 1 + (found.orders > 0)
    lengths += np.bincount(own, weights=more, minlength=count).astype(np.int64)
    whole = lengths <= MOST_LABELS
    whole[own[found.counts == 0]] = False
    taken = whole[own]
    layouts, layout_ids = _layouts(conversations, found, own, taken)
    # Texts: those of the conversations, then those of members, in the order of the new labels.
    apart = np.zeros(len(arguments), dtype=bool)
    apart[np.flatnonzero(arguments)[taken]] = True
    with_text = np.ones((len(found.codes), 2), dtype=bool)
    with_text[:, 1] = found.codes < len(KINDS)
    of_objects = np.repeat(taken, found.counts)
    with_text &= of_objects[:, None]
    objects = row_numbers(prefix_sums(found.counts))
    sizes = np.ones(len(arguments), dtype=np.int64)
    per_object = np.bincount(objects, weights=with_text.sum(axis=1), minlength=len(taken)).astype(np.int64)
    sizes[np.flatnonzero(arguments)] = np.where(taken, per_object, 1)
    sources = np.repeat(np.arange(len(arguments)), sizes)
    sources[np.repeat(apart, sizes)] = len(arguments) + np.flatnonzero(with_text.reshape(-1))
    texts = take_texts([conversations.texts, found.texts], sources)
    return ConversationColumns(rows=conversations.rows, layouts=layouts, layout_ids=layout_ids, texts=texts)


def _members(texts: pa.StringArray, *, with_order: bool) -> _Members:
    r"""Return the members of objects in JSON.

    `{"a": 1, "b": [2]}` has quotes at 1, 3, 9 and 11, and one comma outside of the list, at 7. Its members lie at
    [1, 7) and [9, 17), their values begin three bytes behind the last quote of their keys.
    """
    values, offsets = utf8_buffers(texts)
    quotes = unescaped_quotes(values, offsets)
    opening, closing = quotes[::2], quotes[1::2]
    places = np.flatnonzero(_table(OPENING + CLOSING + bytes([COMMA]))[values])
    places = places[np.searchsorted(quotes, places) % 2 == 0]
    kinds = values[places]
    depths = np.cumsum(_table(OPENING)[kinds].astype(np.int64) - _table(CLOSING)[kinds])
    commas = places[(kinds == COMMA) & (depths == 1)]
    firsts = np.searchsorted(commas, offsets)
    starts = offsets.astype(np.int64)
    begins = np.insert(commas + len(", "), firsts[:-1], starts[:-1] + 1)
    ends = np.insert(commas, firsts[1:], starts[1:] - 1)
    counts = np.diff(firsts) + 1
    keys_end = closing[np.searchsorted(opening, begins)]
    value_begins = keys_end + len('": ')
    codes = _codes(values, value_begins, ends)
    strings = codes == KINDS.index("value")
    spans = np.stack([begins + 1, keys_end, value_begins + strings, ends - strings], axis=1).reshape(-1, 2)
    written = _unescaped(values, spans, np.stack([np.ones(len(codes), dtype=bool), strings], axis=1).reshape(-1))
    codes, labels = _with_blank(codes, written)
    bad = np.bincount(row_numbers(prefix_sums(counts)), weights=codes == 255, minlength=len(counts)) > 0
    keep = ~np.repeat(bad, counts)
    if not keep.all():
        written = written.filter(bool_array(np.repeat(keep, 2)))
    counts = np.where(bad, 0, counts)
    orders, order_labels = _orders(written, counts) if with_order else (np.zeros(len(counts), dtype=np.int64), [""])
    return _Members(
        counts=counts, codes=codes[keep], labels=labels, orders=orders, order_labels=order_labels, texts=written
    )


def _orders(texts: pa.StringArray, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the orders of the keys of objects and their labels, as in `_Members`."""
    keys = texts.take(number_array(np.arange(0, len(texts), 2))).dictionary_encode()
    words = [key.lower() for key in keys.dictionary.to_pylist()]
    rows, numbers = _distinct(numbers_of(keys.indices), prefix_sums(counts))
    labels = {"": 0}
    found = []
    for row in rows:
        own = [words[key] for key in np.frombuffer(row, dtype=np.int32).tolist()]
        label = f"{ORDER}{sorted(range(len(own)), key=own.__getitem__)}" if len(own) > 1 else ""
        found.append(labels.setdefault(label, len(labels)))
    return np.asarray(found, dtype=np.int64)[numbers], list(labels)


def _table(characters: bytes) -> NDArray[np.bool_]:
    return np.isin(np.arange(256), list(characters))


def _codes(values: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return u8[m]: the code of each value, but for blank texts; 255 where there is none."""
    first, second = values[begins], values[begins + 1]
    codes = BY_FIRST_BYTE[first]
    codes[(first == ord("-")) & (second == INFINITY)] = 255
    containers = _table(OPENING)[first] & (ends - begins == 2)
    codes[containers] += len(KINDS) + CONSTANTS.index("value={}") - KINDS.index("value_object")
    return codes


def _unescaped(values: NDArray[np.uint8], spans: NDArray[np.int64], strings: NDArray[np.bool_]) -> pa.StringArray:
    """Return spans as texts; of strings, what they say.

    Args:
        spans: int64[s, 2], [start, end) in `values`.
        strings: bool[s]: those that are a string of JSON, without the quotes.
    """
    texts = slice_texts(values, spans[:, 0], spans[:, 1])
    slashes = np.flatnonzero(values == BACKSLASH)
    within = np.diff(np.searchsorted(slashes, spans), axis=1)[:, 0] > 0
    chosen = np.flatnonzero(within & strings)
    if not len(chosen):
        return texts
    escaped = texts.filter(bool_array(within & strings)).to_pylist()
    said = [scanstring(text + '"', 0)[0] for text in escaped]
    sources = np.arange(len(texts))
    sources[chosen] = len(texts) + np.arange(len(chosen))
    return take_texts([texts, string_array(said)], sources)


def _with_blank(codes: NDArray[np.uint8], texts: pa.StringArray) -> tuple[NDArray[np.uint8], list[str]]:
    """Return codes with those of blank texts, and the labels of all; 255 where a key is blank."""
    labels = [*KINDS, *CONSTANTS]
    blank = are_blank(*utf8_buffers(texts)).reshape(-1, 2)
    codes[blank[:, 0]] = 255
    for member in np.flatnonzero(blank[:, 1] & (codes == KINDS.index("value"))).tolist():
        label = f"value={json_text(texts[2 * member + 1].as_py())}"
        if label not in labels and len(label) <= LONGEST_CONSTANT and len(labels) < 255:
            labels.append(label)
        codes[member] = labels.index(label) if label in labels else 255
    return codes, labels


def _layouts(
    conversations: ConversationColumns, found: _Members, own: NDArray[np.int64], taken: NDArray[np.bool_]
) -> tuple[list[Layout], NDArray[np.int64]]:
    """Return the layouts of conversations with members, and which each conversation has, int64[n].

    Args:
        own: int64[a], the conversation of each object.
        taken: bool[a], whether its members are taken.
    """
    shapes, shape_ids = _distinct(found.codes, prefix_sums(found.counts))
    orders = len(found.order_labels)
    shape_ids = shape_ids * orders + found.orders
    # For each conversation its layout, and the shapes of its objects, as one row of numbers.
    sizes = np.bincount(own[taken], minlength=len(conversations.rows)) + 1
    offsets = prefix_sums(sizes)
    numbers = np.empty(offsets[-1], dtype=np.int32)
    with_shape = np.ones(len(numbers), dtype=bool)
    with_shape[offsets[:-1]] = False
    numbers[offsets[:-1]] = conversations.layout_ids
    numbers[with_shape] = shape_ids[taken]
    rows, layout_ids = _distinct(numbers, offsets)
    layouts = []
    for row in rows:
        number, *objects = np.frombuffer(row, dtype=np.int32).tolist()
        members = []
        for shape, order in (divmod(one, orders) for one in objects):
            labels = (label for code in shapes[shape] for label in ("key", found.labels[code]))
            members.append((*filter(None, [found.order_labels[order]]), *labels))
        layouts.append(with_members(conversations.layouts[number], *members))
    return layouts, layout_ids


def _distinct(values: NDArray[Any], offsets: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the distinct rows of numbers as bytes, and which one each row is, int64[n]."""
    import pyarrow as pa

    bounds = (offsets * values.itemsize).astype(np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(np.ascontiguousarray(values))]
    encoded = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers).dictionary_encode()
    return encoded.dictionary.to_pylist(), numbers_of(encoded.indices).astype(np.int64)


def with_members(layout: Layout, *members: Sequence[str]) -> Layout:
    """Return a layout with the labels of members in place of arguments; the last ones stand for all that follow."""
    rest = iter(members)
    last: Sequence[str] = ()
    out: list[str] = []
    for label in layout:
        if label == ARGUMENTS and members:
            last = next(rest, last)
            out += last
        else:
            out.append(label)
    return tuple(out)
