"""Calls of tools from Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, bools_of, number_array, numbers_of, string_array, string_scalar
from sft_shards.formats.columnar import prefix_sums, utf8_buffers
from sft_shards.formats.json_outlines import take_json_apart
from sft_shards.formats.layouts import NAME, take_arguments_apart
from sft_shards.formats.nesting import is_shallow, parse_json
from sft_shards.formats.records.arrow_columns import as_strings, is_list, not_null, slice_texts, take_texts
from sft_shards.formats.records.json_of_columns import json_column
from sft_shards.formats.records.json_schemas import OBJECT_MARK
from sft_shards.formats.records.role_sequences import CALLS
from sft_shards.formats.records.tool_json import ARGUMENTS_RULE, is_unicode
from sft_shards.formats.records.tools import tool_call

if TYPE_CHECKING:
    import pyarrow as pa

CODES = {label: code for code, label in CALLS.items()}


@dataclass(frozen=True, kw_only=True)
class CallColumns:
    """The calls of some messages. Each has three codes: the call's, its id's (0 where it has none), its arguments'."""

    counts: NDArray[np.int64]
    """int64[t]: how many calls each message has."""
    codes: NDArray[np.uint8]
    """u8[c, 3]: of each call; those of its arguments are 0 where it is not supported."""
    texts: pa.StringArray
    """The names of all calls, then their ids, then their arguments: 3c texts, null or "" where there is none."""

    @classmethod
    def merge(cls, parts: Sequence[CallColumns]) -> CallColumns:
        """Put the calls of the same messages together, in the order of the messages."""
        import pyarrow as pa

        if len(parts) == 1:
            return parts[0]
        owners = np.concatenate([np.repeat(np.arange(len(part.counts)), part.counts) for part in parts])
        order = np.argsort(owners, kind="stable")
        columns = [
            pa.concat_arrays([part.texts.slice(at * len(part.codes), len(part.codes)) for part in parts])
            for at in range(3)
        ]
        return cls(
            counts=np.sum([part.counts for part in parts], axis=0),
            codes=np.concatenate([part.codes for part in parts])[order],
            texts=pa.concat_arrays([column.take(number_array(order)) for column in columns]),
        )


def read_calls(column: pa.Array) -> CallColumns | None:
    """Return the calls of messages, a list for each; None for a column of another type.

    A call has its name and arguments in `function`, or, without any, itself.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    calls, counts = children(column.flatten()), numbers_of(column.value_lengths(), null=0)
    if not _has_any(calls, "function"):
        return _calls(calls, counts)
    if not pa.types.is_struct(calls["function"].type):
        return None
    functions = children(calls["function"])
    if calls["function"].null_count and _has_any(calls, "name"):
        bare = calls["function"].is_null()
        for name in ("name", "arguments"):
            own, inner = (json_column(one[name]) if name in one else None for one in (calls, functions))
            if own is None or inner is None:
                return None
            functions[name] = pc.if_else(bare, own, inner)
    return _calls({**calls, **functions}, counts)


def read_function_calls(column: pa.Array) -> CallColumns | None:
    """Return the calls of messages, one for each that has any; None for a column of another type."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        return None
    filled = not_null(column)
    calls = children(column.filter(bool_array(filled)))
    return None if _has_any(calls, "function") else _calls(calls, filled)


def read_part_calls(parts: Mapping[str, pa.Array], kinds: pa.StringArray) -> CallColumns | None:
    """Return the calls of some content parts (see `fields.CALL_PARTS`); None for columns of other types.

    Args:
        parts: by key, one value for each part.
        kinds: the type of each.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    used = bools_of(pc.equal(kinds, string_scalar("tool_use")))
    nothing = pa.nulls(len(kinds), pa.string())
    values = json_column(parts.get("value", nothing))
    inputs, arguments = (json_column(parts.get(key, nothing)) for key in ("input", "arguments"))
    if values is None or inputs is None or arguments is None or _has_any(parts, "function"):
        return None
    if as_strings(parts.get("input", nothing)) is not None:  # which must be objects
        inputs = pc.if_else(pc.starts_with(inputs, OBJECT_MARK), inputs, string_scalar(None))
    arguments = pc.if_else(bool_array(used), inputs, pc.coalesce(arguments, string_scalar("{}")))
    valued = ~used & not_null(values)
    beside = {"name": nothing, **parts, "arguments": arguments}
    direct = _calls({key: one.filter(bool_array(~valued)) for key, one in beside.items()}, ~valued)
    if direct is None or not valued.any():
        return direct
    raw, offsets = utf8_buffers(values)
    texts = slice_texts(raw, offsets[:-1] + np.where(are_objects(values), len(OBJECT_MARK), 0), offsets[1:])
    return CallColumns.merge([direct, read_calling_turns(texts, valued)])


def are_objects(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Return bool[n]: the texts that stand for an object, behind `OBJECT_MARK`."""
    import pyarrow.compute as pc

    return bools_of(pc.coalesce(pc.starts_with(texts, OBJECT_MARK), bool_array(np.zeros(len(texts), dtype=bool))))


def _has_any(columns: Mapping[str, pa.Array], name: str) -> bool:
    return name in columns and columns[name].null_count < len(columns[name])


def _calls(fields: Mapping[str, pa.Array], counts: NDArray[Any]) -> CallColumns | None:
    """Return calls by their names, arguments and ids, which are null or not there where a call has none."""
    import pyarrow as pa

    if not fields.keys() >= {"name", "arguments"}:
        return None
    names, arguments = as_strings(fields["name"]), json_column(fields["arguments"])
    count = len(fields["name"])
    ids = as_strings(fields["id"]) if _has_any(fields, "id") else pa.nulls(count, pa.string())
    if names is None or arguments is None or ids is None:
        return None
    labels, texts = _taken_apart(arguments)
    with_id = not_null(ids)
    supported = _are_names(names) & (~with_id | _are_not_blank(ids))
    codes = np.zeros((count, 3), dtype=np.uint8)
    codes[:, 0] = CODES["call"]
    codes[with_id, 1] = CODES["call_id"]
    codes[:, 2] = np.where(supported, labels, 0)
    return CallColumns(counts=counts.astype(np.int64), codes=codes, texts=pa.concat_arrays([names, ids, texts]))


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
    if text is None:
        return [unsupported]
    try:
        value = parse_json(text)
        if not is_shallow(value):
            return [unsupported]
        calls = [tool_call(one) for one in (value if isinstance(value, list) else [value])]
    except ValueError:
        return [unsupported]
    out = []
    for call in calls:
        function = call["function"]
        label, arguments = take_arguments_apart(function["arguments"])
        own = (function["name"], call.get("id", ""), label, arguments)
        named = NAME.fullmatch(own[0]) and ("id" not in call or own[1].strip())
        out.append(own if named and is_unicode(own[1] + arguments) else unsupported)
    return out


def children(structs: pa.StructArray) -> dict[str, pa.Array]:
    """Return the fields of structs by their names."""
    return dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))


def _are_names(names: pa.StringArray) -> NDArray[np.bool_]:
    encoded = names.dictionary_encode()
    good = [name is not None and NAME.fullmatch(name) is not None for name in encoded.dictionary.to_pylist()]
    return np.take(np.asarray([*good, False], dtype=bool), numbers_of(encoded.indices, null=-1))


def _are_not_blank(texts: pa.StringArray) -> NDArray[np.bool_]:
    return np.asarray([text is not None and bool(text.strip()) for text in texts.to_pylist()], dtype=bool)


def _taken_apart(arguments: pa.StringArray) -> tuple[NDArray[np.uint8], pa.StringArray]:
    """Return the code of each call's arguments, u8[c], 0 where they are not supported, and the texts of all.

    Args:
        arguments: texts; behind `OBJECT_MARK`, objects as `layouts.json_text` writes them.
    """
    given, marked = not_null(arguments), are_objects(arguments)
    values, offsets = utf8_buffers(arguments)
    begins = offsets[:-1] + np.where(marked, len(OBJECT_MARK), 0)
    parts = take_json_apart(slice_texts(values, begins, np.where(marked, begins, offsets[1:])), ARGUMENTS_RULE)
    known = np.asarray([*(CODES.get(layout[0], 0) for layout in parts.layouts), 0], dtype=np.uint8)
    codes = np.where(given, known[parts.layout_ids], 0).astype(np.uint8)
    own = np.where(parts.counts > 0, prefix_sums(parts.counts)[:-1], len(parts.texts))
    texts = [parts.texts, string_array([""])]
    if marked.any():
        filled = marked & (offsets[1:] - begins > len("{}"))
        codes[marked], codes[filled] = CODES["arguments={}"], CODES["arguments"]
        texts.append(slice_texts(values, begins[filled], offsets[1:][filled]))
        own[marked], own[filled] = len(parts.texts), len(parts.texts) + 1 + np.arange(filled.sum())
    return codes, take_texts(texts, own)
