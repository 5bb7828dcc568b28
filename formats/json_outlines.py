"""JSON texts by their outlines: Python looks at each outline once, and not at each text.

The outline of a JSON text is the text without what its strings say. Thousands of calls and tools have few outlines:

    texts      {"city": "Basel", "days": 2}      {"city": "Graz", "days": 2}
    outline    {"city": "", "days": 2}
    strings    Basel                             Graz

Whether a text is JSON follows from its outline, and from each of its strings by itself. So does what is taken from it:
a function takes the outline apart, with a mark in place of each string, and the strings of all texts are filled in at
once. Keys stay in an outline, and for tools the types and what stands in lists, which schemas have in common. A text
that breaks a rule (its quotes are no pairs, a key stands there twice) is taken apart by itself.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import number_array, numbers_of, string_array
from sft_shards.formats.columnar import Layout, prefix_sums, ranges, text_labels, utf8_buffers
from sft_shards.formats.json_bytes import beside, escaping_slashes, unescaped_quotes
from sft_shards.formats.layouts import NAME, Parts, json_text

if TYPE_CHECKING:
    import pyarrow as pa

BACKSLASH = ord("\\")
ESCAPES = np.isin(np.arange(256), list(b'"\\nrtbf'))
"""What stands behind a backslash in JSON as `json_text` writes it; control characters aside."""
MAYBE_BLANK = np.isin(np.arange(256), [*range(33), 0xC2, *range(0xE1, 0xE4)])
"""What white space begins with in UTF-8."""
MARK = secrets.token_hex(8)
MARKED = re.compile(MARK + r"-(\d+)-")
"""Stands for a string in an outline, by its number. No record can hold it: it is another one in every process."""

TakeApart = Callable[[str], Parts | None]
"""Returns labels and texts of a JSON text, or None where it has none. Texts are strings of it where their label is
`text`, and JSON as `json_text` writes it elsewhere. Which labels it has depends on the outline, on whether these texts
are blank, and on whether names are names."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a kind of JSON texts is taken apart."""

    take_apart: TakeApart
    names: Callable[[Any], list[Any]] = lambda value: []
    """Returns what must match `NAME` in the value of a JSON text that has labels."""
    with_types: bool = False
    """Whether the values of `type` and the strings in lists stay in an outline."""


@dataclass(frozen=True, kw_only=True)
class JsonParts:
    """What many JSON texts were taken apart to."""

    layouts: list[Layout]
    """The labels that occur."""
    layout_ids: NDArray[np.int64]
    """int64[n]: index into `layouts`; -1 where a text has no labels."""
    counts: NDArray[np.int64]
    """int64[n]: how many texts each has."""
    texts: pa.StringArray
    """The texts of all, in order; no nulls."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What an outline is taken apart to: pieces, which are its own words or one of the strings of a text."""

    labels: Layout | None
    words: tuple[str, ...] = ()
    pieces: tuple[int, ...] = ()
    """Of all texts one after the other: the number of a string, or -1 for the next of the words."""
    ends: tuple[int, ...] = ()
    """How many pieces there are up to the end of each text."""
    plain: frozenset[int] = frozenset()
    """Numbers of the strings that are a text by themselves."""
    names: frozenset[int] = frozenset()
    """Numbers of the strings that must match `NAME`."""
    alone: bool = False
    """Whether every text of this outline is taken apart by itself."""


ALONE = _Plan(labels=None, alone=True)


def take_json_apart(texts: pa.StringArray, rule: Rule) -> JsonParts:
    """Return what JSON texts, no nulls, are taken apart to: the same as one by one."""
    encoded = texts.dictionary_encode()
    if 2 * len(encoded.dictionary) > len(texts):
        return _Outlines(texts, rule).parts()
    distinct = _Outlines(encoded.dictionary, rule).parts()
    own = numbers_of(encoded.indices).astype(np.int64)
    counts = distinct.counts[own]
    taken = ranges(prefix_sums(distinct.counts)[own], counts)
    return JsonParts(
        layouts=distinct.layouts,
        layout_ids=distinct.layout_ids[own],
        counts=counts,
        texts=distinct.texts.take(number_array(taken)),
    )


class _Outlines:
    """The outlines and strings of some texts.

    The texts `{"a":"xy"}` and `["z"]` have these, of which the outlines stand in one buffer, and the strings, too:

        values      {"a":"xy"}["z"]
        outlines    {"a":""}[""]        offsets [0, 8, 12]
        strings     xyz                 firsts [0, 1, 2]
    """

    def __init__(self, texts: pa.StringArray, rule: Rule) -> None:
        import pyarrow as pa

        self._texts, self._rule = texts, rule
        values, offsets = utf8_buffers(texts)
        quotes = unescaped_quotes(values, offsets)
        before = np.searchsorted(quotes, offsets)
        self._alone = np.diff(before) % 2 == 1
        if self._alone.any():
            quotes = quotes[~np.repeat(self._alone, np.diff(before))]
        opening, closing = quotes[::2], quotes[1::2]
        own = ~_are_kept(values, opening, closing, with_types=rule.with_types)
        begins, ends = opening[own] + 1, closing[own]
        borders = np.empty(2 * len(begins) + 2, dtype=np.int32)
        borders[0], borders[-1] = 0, len(values)
        borders[1:-1:2], borders[2:-1:2] = begins, ends
        pieces = pa.Array.from_buffers(
            pa.string(), len(borders) - 1, [None, pa.py_buffer(borders), pa.py_buffer(values)]
        )
        words = pieces.take(number_array(np.arange(0, len(pieces), 2)))
        self._strings = pieces.take(number_array(np.arange(1, len(pieces), 2)))
        removed = prefix_sums(ends - begins)
        self._firsts = np.searchsorted(begins, offsets)
        bounds = offsets - removed[self._firsts]
        buffers = [None, pa.py_buffer(bounds.astype(np.int32)), words.buffers()[2]]
        self._outlines = pa.Array.from_buffers(pa.string(), len(texts), buffers)
        self._places = (begins - removed[:-1] - np.repeat(bounds[:-1], np.diff(self._firsts))).astype(np.int32)

    def parts(self) -> JsonParts:
        """Take all texts apart."""
        encoded = self._outlines.dictionary_encode()
        numbers = numbers_of(encoded.indices).astype(np.int64)
        examples = np.zeros(len(encoded.dictionary), dtype=np.int64)
        examples[numbers[::-1]] = np.arange(len(numbers))[::-1]
        plans = [
            _planned(outline, self._places[self._firsts[row] : self._firsts[row + 1]].tobytes(), self._rule)
            for outline, row in zip(encoded.dictionary.to_pylist(), examples.tolist(), strict=True)
        ]
        plain_owners, plain = self._chosen([plan.plain for plan in plans], numbers)
        name_owners, names = self._chosen([plan.names for plan in plans], numbers)
        self._alone |= np.asarray([plan.alone for plan in plans], dtype=bool)[numbers]
        self._alone[plain_owners[_are_blank(self._strings.take(number_array(plain)))]] = True
        self._alone[name_owners[_are_no_names(self._strings.take(number_array(names)))]] = True
        self._unescape(plain)
        rows = np.flatnonzero(self._alone)
        for row, text in zip(rows.tolist(), self._texts.take(number_array(rows)).to_pylist(), strict=True):
            numbers[row] = len(plans)
            plans.append(_plan(self._rule.take_apart(text)))
        return self._filled(plans, numbers)

    def _chosen(
        self, chosen: Sequence[frozenset[int]], numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the strings that the plans choose, int64[m], and the text of each, int64[m].

        Args:
            chosen: for each plan, numbers of strings within a text.
            numbers: int64[n], the plan of each text.
        """
        counts = np.fromiter(map(len, chosen), dtype=np.int64, count=len(chosen))
        flat = np.asarray([number for one in chosen for number in sorted(one)], dtype=np.int64)
        each = counts[numbers]
        owners = np.repeat(np.arange(len(numbers)), each)
        return owners, flat[ranges(prefix_sums(counts)[:-1][numbers], each)] + self._firsts[owners]

    def _unescape(self, plain: NDArray[np.int64]) -> None:
        """Find what strings that are escaped say, and the texts with strings that are none.

        Args:
            plain: int64[m], the strings that are wanted without escapes.
        """
        values, offsets = utf8_buffers(self._strings)
        owners = np.repeat(np.arange(len(self._texts)), np.diff(self._firsts))
        controls = np.flatnonzero(values < ord(" "))
        self._alone[owners[np.searchsorted(offsets, controls, side="right") - 1]] = True
        self._as_texts = np.arange(len(self._strings))
        """int64[s]: where each string stands, without escapes, among `_strings` and `_more`."""
        self._in_json = self._as_texts.copy()
        """int64[s]: where each stands as `json_text` writes it."""
        self._more: list[str] = []
        slashes = escaping_slashes(values)
        if not len(slashes):
            return
        places = np.searchsorted(offsets, slashes, side="right") - 1
        odd, escaped, wanted = np.zeros((3, len(self._strings)), dtype=bool)
        odd[places[~ESCAPES[values[np.minimum(slashes + 1, len(values) - 1)]]]] = True
        escaped[places] = wanted[plain] = True
        chosen = np.flatnonzero(odd | (escaped & wanted))
        for place, text in zip(chosen.tolist(), self._strings.take(number_array(chosen)).to_pylist(), strict=True):
            try:
                said = scanstring(text + '"', 0)[0]
                said.encode()
            except ValueError:
                self._alone[owners[place]] = True
                continue
            self._as_texts[place] = len(odd) + len(self._more)
            self._more.append(said)
            if odd[place]:
                self._in_json[place] = len(odd) + len(self._more)
                self._more.append(json_text(said)[1:-1])

    def _filled(self, plans: Sequence[_Plan], numbers: NDArray[np.int64]) -> JsonParts:
        """Return what the texts are taken apart to by their plans."""
        import pyarrow as pa

        layouts: dict[Layout, int] = {}
        ids = [-1 if plan.labels is None else layouts.setdefault(plan.labels, len(layouts)) for plan in plans]
        piece_counts = np.asarray([len(plan.pieces) for plan in plans], dtype=np.int64)
        text_counts = np.asarray([len(plan.ends) for plan in plans], dtype=np.int64)
        pieces = np.asarray([piece for plan in plans for piece in plan.pieces], dtype=np.int64)
        ends = np.asarray([end for plan in plans for end in plan.ends], dtype=np.int64)
        plain = np.asarray([piece in plan.plain for plan in plans for piece in plan.pieces], dtype=bool)
        words = string_array(word for plan in plans for word in plan.words)
        are_words = pieces < 0
        pieces[are_words] = np.arange(len(words))
        # From the pieces of each plan to those of each text.
        each = piece_counts[numbers]
        offsets = prefix_sums(each)
        of_plans = ranges(prefix_sums(piece_counts)[:-1][numbers], each)
        own = ~are_words[of_plans]
        indices = pieces[of_plans]
        strings = (indices + np.repeat(self._firsts[:-1], each))[own]
        places = np.where(plain[of_plans[own]], self._as_texts[strings], self._in_json[strings])
        indices[own] = len(words) + places
        all_pieces = pa.concat_arrays([words, self._strings, string_array(self._more)])
        filled = all_pieces.take(number_array(indices))
        bounds = utf8_buffers(filled)[1]
        counts = text_counts[numbers]
        text_ends = ends[ranges(prefix_sums(text_counts)[:-1][numbers], counts)] + np.repeat(offsets[:-1], counts)
        borders = np.append(np.int32(0), bounds[text_ends]).astype(np.int32)
        return JsonParts(
            layouts=list(layouts),
            layout_ids=np.asarray(ids, dtype=np.int64)[numbers],
            counts=counts,
            texts=pa.Array.from_buffers(
                pa.string(), len(borders) - 1, [None, pa.py_buffer(borders), filled.buffers()[2]]
            ),
        )


def _are_kept(
    values: NDArray[np.uint8], opening: NDArray[np.int64], closing: NDArray[np.int64], *, with_types: bool
) -> NDArray[np.bool_]:
    """Return bool[k]: the strings that stay in an outline. What stays by mistake makes more outlines, and no others."""
    if not len(opening):
        return np.zeros(0, dtype=bool)
    keys = values[beside(values, closing, 1)] == ord(":")
    if not with_types:
        return np.asarray(keys)
    in_lists = values[beside(values, opening, -1)] != ord(":")
    are_types = closing - opening == len("type") + 1
    for at, byte in enumerate(b"type", 1):
        are_types[are_types] = values[opening[are_types] + at] == byte
    return np.asarray(keys | in_lists | np.append(False, (are_types & keys)[:-1]))


def _are_blank(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Return bool[t]: the strings, escaped as in JSON, that are blank; those with an escape in front may be."""
    values, offsets = utf8_buffers(texts)
    blank = np.asarray(np.diff(offsets) == 0)
    filled = np.flatnonzero(~blank)
    first = values[offsets[filled]]
    for row in filled[MAYBE_BLANK[first] | (first == BACKSLASH)].tolist():
        raw = values[offsets[row] : offsets[row + 1]].tobytes().decode()
        blank[row] = raw[0] == "\\" or not raw.strip()
    return blank


def _are_no_names(texts: pa.StringArray) -> NDArray[np.bool_]:
    encoded = texts.dictionary_encode()
    wrong = [NAME.fullmatch(text) is None for text in encoded.dictionary.to_pylist()]
    return np.take(np.asarray(wrong, dtype=bool), numbers_of(encoded.indices))


@lru_cache(maxsize=2048)
def _planned(outline: str, places: bytes, rule: Rule) -> _Plan:
    """Return what an outline is taken apart to.

    Args:
        places: int32[s] as bytes: where its strings are to stand, in bytes of its UTF-8.
    """
    cuts = [0, *np.frombuffer(places, dtype=np.int32).tolist(), None]
    raw = outline.encode()
    words = [raw[begin:end].decode() for begin, end in pairwise(cuts)]
    marked = words[0] + "".join(f"{MARK}-{number}-{word}" for number, word in enumerate(words[1:]))
    try:
        value = json.loads(marked, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        return ALONE
    parts = rule.take_apart(marked) if isinstance(value, (dict, list)) else None
    if parts is None or MARK in "".join(parts[0]):
        return ALONE
    names = [MARKED.fullmatch(name) for name in rule.names(value) if isinstance(name, str)]
    return _plan(parts, frozenset(int(name[1]) for name in names if name))


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a ValueError where it has a key twice, of which Python takes the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _plan(parts: Parts | None, names: frozenset[int] = frozenset()) -> _Plan:
    """Return the plan for what was taken apart: of words alone where there are no marks in it."""
    if parts is None:
        return _Plan(labels=None)
    words: list[str] = []
    pieces: list[int] = []
    ends: list[int] = []
    plain: set[int] = set()
    for label, text in zip(text_labels(parts[0]), parts[1], strict=True):
        for number, piece in enumerate(MARKED.split(text)):
            if number % 2:
                pieces.append(int(piece))
                plain |= {int(piece)} if label == "text" else set()
            elif piece:
                words.append(piece)
                pieces.append(-1)
        ends.append(len(pieces))
    return _Plan(
        labels=parts[0], words=tuple(words), pieces=tuple(pieces), ends=tuple(ends), plain=frozenset(plain), names=names
    )
