"""Calls of tools and tools on offer, from Arrow columns."""

from __future__ import annotations

import marshal
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, numbers_of, string_array
from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import MOST_LABELS, NAME, Parts, take_arguments_apart, take_tools_apart
from sft_shards.formats.nesting import MAX_NESTING, parse_json
from sft_shards.formats.records.arrow_columns import as_strings, is_list, not_empty, not_null, take_texts
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.json_schemas import OBJECT_MARK
from sft_shards.formats.records.role_sequences import CALLS
from sft_shards.formats.records.tools import read_arguments, read_tools, tool_call

if TYPE_CHECKING:
    import pyarrow as pa

CODES = {label: code for code, label in CALLS.items()}
OWN_NAMES = FieldMap()
"""Tools in a column of the user's own name are not read here."""
MOST_BRACKETS = MAX_NESTING // 2
"""Brackets in JSON up to which it is certainly not nested too deeply."""


@dataclass(frozen=True, kw_only=True)
class CallColumns:
    """The calls of some messages. Each has three codes: the call's, its id's (0 where it has none), its arguments'."""

    counts: NDArray[np.int64]
    """int64[t]: how many calls each message has."""
    codes: NDArray[np.uint8]
    """u8[c, 3]: of each call; those of its arguments are 0 where it is not supported."""
    texts: pa.StringArray
    """The names of all calls, then their ids, then their arguments: 3c texts, null or "" where there is none."""


def read_calls(column: pa.Array) -> CallColumns | None:
    """Return the calls of messages, a list for each; None for a column of another type."""
    import pyarrow as pa

    if not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    calls = _children(column.flatten())
    if "function" not in calls or not pa.types.is_struct(calls["function"].type):
        return None
    function = _children(calls["function"])
    if not function.keys() >= {"name", "arguments"}:
        return None
    names, arguments = as_strings(function["name"]), _values(function["arguments"])
    ids = calls.get("id")
    no_ids = ids is None or ids.null_count == len(ids)
    ids = pa.nulls(len(calls["function"]), pa.string()) if no_ids else as_strings(ids)
    if names is None or arguments is None or ids is None:
        return None
    labels, texts = _taken_apart(arguments)
    with_id = not_null(ids)
    supported = _are_names(names) & (~with_id | _are_not_blank(ids))
    codes = np.zeros((len(names), 3), dtype=np.uint8)
    codes[:, 0] = CODES["call"]
    codes[with_id, 1] = CODES["call_id"]
    codes[:, 2] = np.where(supported, labels, 0)
    return CallColumns(
        counts=numbers_of(column.value_lengths(), null=0).astype(np.int64),
        codes=codes,
        texts=pa.concat_arrays([names, ids, texts]),
    )


def read_calling_turns(texts: pa.StringArray, calling: NDArray[np.bool_]) -> CallColumns:
    """Return the calls of turns whose text is a call in JSON or a list of these (see `sharegpt`).

    Args:
        calling: bool[t]: which of the texts are calls. One that is not supported gets one call with the codes 0.
    """
    counts = np.zeros(len(texts), dtype=np.int64)
    found: list[tuple[str, str, str, str]] = []
    for place, text in zip(
        np.flatnonzero(calling).tolist(), texts.filter(bool_array(calling)).to_pylist(), strict=True
    ):
        own = _calls_in(text)
        counts[place] = len(own)
        found += own
    names, ids, labels, arguments = zip(*found, strict=True) if found else ((), (), (), ())
    codes = np.zeros((len(found), 3), dtype=np.uint8)
    codes[:, 0] = CODES["call"]
    codes[:, 1] = np.where([bool(one) for one in ids], CODES["call_id"], 0)
    codes[:, 2] = [CODES.get(label, 0) for label in labels]
    return CallColumns(counts=counts, codes=codes, texts=string_array([*names, *ids, *arguments]))


def _calls_in(text: str | None) -> list[tuple[str, str, str, str]]:
    """Return name, id, label of the arguments and arguments of each call in a text; ("", "", "", "") if unsupported."""
    unsupported = ("", "", "", "")
    if text is None or text.count("[") + text.count("{") > MOST_BRACKETS:
        return [unsupported]
    try:
        value = parse_json(text)
        calls = [tool_call(one) for one in (value if isinstance(value, list) else [value])]
    except ValueError:
        return [unsupported]
    out = []
    for call in calls:
        function = call["function"]
        label, arguments = take_arguments_apart(function["arguments"])
        own = (function["name"], call.get("id", ""), label, arguments)
        named = NAME.fullmatch(own[0]) and ("id" not in call or own[1].strip())
        out.append(own if named and _is_unicode(own[1] + arguments) else unsupported)
    return out


def _children(structs: pa.StructArray) -> dict[str, pa.Array]:
    return dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))


def _are_names(names: pa.StringArray) -> NDArray[np.bool_]:
    encoded = names.dictionary_encode()
    good = [name is not None and NAME.fullmatch(name) is not None for name in encoded.dictionary.to_pylist()]
    return np.take(np.asarray([*good, False], dtype=bool), numbers_of(encoded.indices, null=-1))


def _are_not_blank(texts: pa.StringArray) -> NDArray[np.bool_]:
    return np.asarray([text is not None and bool(text.strip()) for text in texts.to_pylist()], dtype=bool)


def _values(arguments: pa.Array) -> list[Any] | None:
    """Return the arguments of calls, texts or structs; None for a column of another type."""
    import pyarrow as pa

    if pa.types.is_struct(arguments.type):
        try:
            return list(arguments.to_pylist())
        except (ValueError, OverflowError, TypeError):  # a value that Python has no type for
            return None
    texts = as_strings(arguments)
    return None if texts is None else list(texts.to_pylist())


def _taken_apart(arguments: list[Any]) -> tuple[NDArray[np.uint8], pa.StringArray]:
    """Return the code of each call's arguments, u8[c], 0 where they are not supported, and the texts of all."""
    codes = np.zeros(len(arguments), dtype=np.uint8)
    texts = [""] * len(arguments)
    for place, raw in enumerate(arguments):
        try:
            label, taken = _label_and_text(raw)
        except (TypeError, ValueError):  # a date, say
            continue
        if label and taken.count("[") + taken.count("{") <= MOST_BRACKETS and _is_unicode(taken):
            codes[place], texts[place] = CODES[label], taken
    return codes, string_array(texts)


def _label_and_text(raw: Any) -> tuple[str, str]:
    """Return what `take_arguments_apart` gives for arguments as they stand in a record."""
    if type(raw) is not str:
        return take_arguments_apart(raw)
    if raw.startswith(OBJECT_MARK):
        text = raw[len(OBJECT_MARK) :]
        return ("arguments", text) if text != "{}" else ("arguments={}", "")
    return take_arguments_apart(read_arguments(raw)) if raw.count("[") + raw.count("{") <= MOST_BRACKETS else ("", "")


def _is_unicode(text: str) -> bool:
    """Return whether a text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_offers(found: ConversationColumns, tools: pa.Array) -> ConversationColumns:
    """Return conversations with the tools that they offer, without those whose tools have no labels.

    Args:
        tools: of each record, which `found.rows` counts: texts in JSON or lists of structs; blank, empty or null where
            there are none.
    """
    listed = is_list(tools.type)
    filled = numbers_of(tools.value_lengths(), null=0) > 0 if listed else not_empty(tools)
    offering = filled[found.rows]
    if not offering.any():
        return found
    some = tools.filter(bool_array(np.isin(np.arange(len(tools)), found.rows[offering])))
    try:
        values = some.to_pylist()
    except (ValueError, OverflowError, TypeError):  # a value that Python has no type for
        return found.filter(~offering)
    offers = [_listed_offers(value) if listed else _offers(value) for value in values]
    keep = np.ones(len(found.rows), dtype=bool)
    keep[offering] = [one is not None for one in offers]
    found = found.filter(keep)
    taken = [one for one in offers if one is not None]
    numbers: dict[tuple[str, ...], int] = {(): 0}
    own = np.zeros(len(found.rows), dtype=np.int64)
    own[offering[keep]] = [numbers.setdefault(labels, len(numbers)) for labels, _ in taken]
    pairs, layout_ids = np.unique(found.layout_ids * len(numbers) + own, return_inverse=True)
    labels = list(numbers)
    layouts = [labels[pair % len(numbers)] + tuple(found.layouts[pair // len(numbers)]) for pair in pairs.tolist()]
    counts = np.zeros(len(found.rows), dtype=np.int64)
    counts[offering[keep]] = [len(own_texts) for _, own_texts in taken]
    leaves = string_array(text for _, own_texts in taken for text in own_texts)
    firsts = np.repeat(found.text_offsets[:-1], counts)
    order = np.insert(np.arange(len(found.texts)), firsts, len(found.texts) + np.arange(len(leaves)))
    joined = replace(found, layouts=layouts, layout_ids=layout_ids, texts=take_texts([found.texts, leaves], order))
    short = np.asarray([len(layout) <= MOST_LABELS for layout in layouts], dtype=bool)
    return joined.filter(short[layout_ids])


def _listed_offers(tools: list[Any]) -> Parts | None:
    """Return the labels and texts of tools as a table holds them; None as `_offers` does."""
    try:
        return _marshalled_offers(marshal.dumps(tools, 2))
    except ValueError:  # a date, say
        return None


@lru_cache(maxsize=1024)
def _marshalled_offers(tools: bytes) -> Parts | None:
    return _taken_tools(marshal.loads(tools))  # noqa: S302 - written by this process


@lru_cache(maxsize=1024)
def _offers(text: str) -> Parts | None:
    """Return the labels and texts of tools in JSON; None where they have none, or may be refused."""
    return _taken_tools(text) if text.count("[") + text.count("{") <= MOST_BRACKETS else None


def _taken_tools(tools: Any) -> Parts | None:
    try:
        taken = take_tools_apart(read_tools({"tools": tools}, OWN_NAMES))
    except (RecordError, TypeError, ValueError, AttributeError, KeyError):
        return None
    if taken is None:
        return None
    words = "".join([*taken[0], *taken[1]])
    return taken if words.count("[") + words.count("{") <= MOST_BRACKETS and _is_unicode(words) else None
