"""Records with a list of messages, in columns: what OpenAI's and ShareGPT's formats have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, bools_of, numbers_of, string_scalar
from sft_shards.formats.columnar import ConversationColumns, prefix_sums
from sft_shards.formats.layouts import ALIAS, MOST_LABELS
from sft_shards.formats.records.arrow_columns import (
    all_columns,
    as_strings,
    first_filled_column,
    first_texts,
    have_nothing_beside,
    is_list,
    not_empty,
    not_null,
    take_texts,
)
from sft_shards.formats.records.call_columns import CallColumns, read_calling_turns, read_calls, read_function_calls
from sft_shards.formats.records.content_parts import read_contents
from sft_shards.formats.records.fields import SYSTEM, FieldMap
from sft_shards.formats.records.message_schemas import FUNCTION_CALL, REASONING, TEXT_FIELDS, TOOL_CALLS, TOOLS, WEIGHTS
from sft_shards.formats.records.role_sequences import CALLS as CALLS_OF_TURNS
from sft_shards.formats.records.role_sequences import (
    CONSTANTS,
    FIELDS,
    LEADING_SYSTEM,
    UNKNOWN,
    RoleSequenceTable,
    encode_roles,
    group_turns,
)
from sft_shards.formats.records.tool_columns import with_offers

if TYPE_CHECKING:
    import pyarrow as pa

CALL_KEYS = {TOOL_CALLS: read_calls, FUNCTION_CALL: read_function_calls}
"""How the calls in a key of a message are read."""
NO_ARGUMENTS = next(code for code, label in CALLS_OF_TURNS.items() if label == "arguments={}")


@dataclass(frozen=True, kw_only=True)
class Items:
    """What some messages have, one item for each label. A message's own items follow each other by `orders`."""

    owners: NDArray[np.int64]
    """int64[k]: the message of each."""
    orders: NDArray[np.int64]
    """int64[k]."""
    codes: NDArray[np.uint8]
    """u8[k]: codes of roles, fields and calls."""
    places: NDArray[np.int64]
    """int64[k]: where the text of each stands among all texts; -1 where it has none."""

    @classmethod
    def merge(cls, parts: Sequence[Items]) -> Items:
        """Put the items of all messages into their order."""
        owners, orders = (np.concatenate([getattr(part, name) for part in parts]) for name in ("owners", "orders"))
        order = np.lexsort((orders, owners))
        codes, places = (np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "places"))
        return cls(owners=owners[order], orders=orders[order], codes=codes[order], places=places[order])


def read_message_columns(
    batch: pa.RecordBatch,
    fields: FieldMap,
    *,
    lists: Sequence[str],
    keys: tuple[str, str],
    roles: Mapping[str, str | None],
    special: frozenset[str],
    in_parts: bool = False,
) -> ConversationColumns | None:
    """Return conversations with a layout among records with a list of messages; see `ColumnarFormat.read_columns`.

    Args:
        lists: names that the list of messages may have in a record.
        keys: the keys of a message's role and of its text.
        roles: role as records spell it → one of ours, or None for one that is never text-only.
        special: other keys that make a message more than a role and a text.
        in_parts: whether a content may be a list of parts, or null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = first_filled_column(batch, lists)
    if column is None or not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    messages = column.flatten()
    parts = dict(zip((field.name for field in messages.type), messages.flatten(), strict=True))
    if len(parts) < len(messages.type) or not parts.keys() >= set(keys):
        return None
    names, contents = as_strings(parts[keys[0]]), read_contents(parts[keys[1]], in_parts=in_parts)
    if names is None or contents is None:
        return None
    texts = contents.texts
    lengths = numbers_of(column.value_lengths(), null=0).astype(np.int64)
    prompts, certain = first_texts(batch, SYSTEM)
    tools = _tools_on_offer(batch)
    rows = have_nothing_beside(batch, [name for name in fields.beside() if tools is None or name != TOOLS])
    rows &= certain & (lengths > 0)
    beside, constants, unknown, called = _fields_beside(
        {name: parts[name] for name in parts if name in special - {*keys}}, len(texts)
    )
    unsupported = contents.unsupported | unknown
    if not in_parts:
        unsupported |= ~not_null(texts)
    codes, table = encode_roles(names, fields, roles)
    if contents.reasoning is not None:
        own = not_null(contents.reasoning)
        unsupported |= own & ~table.spells("assistant")[codes]
        if "reasoning" in beside:
            unsupported |= own & not_null(beside["reasoning"])
        beside["reasoning"] = pc.coalesce(contents.reasoning, *filter(None, [beside.get("reasoning")]))
    if contents.calls is not None:
        unsupported |= (contents.calls.counts > 0) & ~table.spells("assistant")[codes]
        called.append(contents.calls)
    calling = table.calling[codes]
    if calling.any():
        called.append(read_calling_turns(texts, calling))
        texts = pc.if_else(bool_array(calling), string_scalar(None), texts)
    calls = CallColumns.merge(called) if called else None
    unsupported |= np.sum([np.zeros(len(texts)), *(one.counts > 0 for one in called)], axis=0) > 1
    offsets, counts = prefix_sums(lengths), lengths
    silent = _silent(texts, codes, table, beside, calls)
    unsupported |= ~not_null(texts) & (silent == 0)
    if calls is not None:
        unsupported[np.repeat(np.arange(len(texts)), calls.counts)[calls.codes[:, 2] == 0]] = True
    if unsupported.any():
        unsupported_before = prefix_sums(unsupported)
        rows &= unsupported_before[offsets[1:]] == unsupported_before[offsets[:-1]]
    if beside or constants or calls is not None or silent.any():
        items = Items.merge(list(_items(codes, silent, beside, constants, calls)))
        texts = take_texts(
            [texts, *beside.values(), *([calls.texts] if calls else [])], items.places[items.places >= 0]
        )
        codes = items.codes
        lengths, counts = (
            np.diff(prefix_sums(np.bincount(found, minlength=offsets[-1]))[offsets])
            for found in (items.owners, items.owners[items.places >= 0])
        )
        rows &= lengths <= MOST_LABELS
    prompted = not_empty(prompts)
    if prompted.any():
        # A system prompt beside the list becomes the first turn. Three records of 2 messages, the second prompted:
        # first_turns [2], indices [0, 1, 7, 2, 3, 4, 5] (prompts follow the 6 texts), lengths [2, 3, 2].
        codes = np.insert(codes, prefix_sums(lengths)[:-1][prompted], LEADING_SYSTEM)
        first_texts_ = prefix_sums(counts)[:-1][prompted]
        indices = np.insert(np.arange(len(texts)), first_texts_, len(texts) + np.flatnonzero(prompted))
        texts, lengths, counts = take_texts([texts, prompts], indices), lengths + prompted, counts + prompted
    found = group_turns(rows, lengths, codes, table, texts, counts)
    return found if tools is None else with_offers(found, tools)


def _tools_on_offer(batch: pa.RecordBatch) -> pa.Array | None:
    """Return the column of tools where it is one of texts or of lists of structs."""
    import pyarrow as pa

    found = all_columns(batch, (TOOLS,))
    if len(found) != 1:
        return None
    listed = is_list(found[0].type) and pa.types.is_struct(found[0].type.value_type)
    return found[0] if listed else as_strings(found[0])


def _silent(
    texts: pa.StringArray,
    codes: NDArray[np.uint8],
    table: RoleSequenceTable,
    beside: Mapping[str, pa.StringArray],
    calls: CallColumns | None,
) -> NDArray[np.uint8]:
    """Return u8[t]: the code of the constant that a content is, 0 where it is a text.

    A content may be empty, and an assistant's null as well, but only beside calls or reasoning.
    """
    empty = ~not_empty(texts)
    if not empty.any():
        return np.zeros(len(texts), dtype=np.uint8)
    filled = not_empty(beside["reasoning"]) if "reasoning" in beside else np.zeros(len(texts), dtype=bool)
    if calls is not None:
        filled |= calls.counts > 0
    given = not_null(texts)
    null, nothing = CONSTANTS
    found = empty & np.where(table.spells("assistant")[codes], filled, given)
    return np.where(found, np.where(given, nothing, null), 0).astype(np.uint8)


def _items(
    codes: NDArray[np.uint8],
    silent: NDArray[np.uint8],
    beside: Mapping[str, pa.StringArray],
    constants: Mapping[str, NDArray[np.bool_]],
    calls: CallColumns | None,
) -> Iterator[Items]:
    """Yield the items of messages by kind: roles, contents that are constants, fields, fields with a constant, calls.

    Of two messages "a" and "b" the second has a name, "n", and no weight. The texts [a, b, null, n] have these items:
    codes [user, tool, name, weight=0], owners [0, 1, 1, 1], places [0, 1, 3, -1].
    """
    count = len(codes)
    every = np.arange(count)

    def items(owners: NDArray[np.int64], order: Any, code: Any, places: Any) -> Items:
        orders, codes_, places_ = (np.broadcast_to(one, owners.shape) for one in (order, code, places))
        return Items(owners=owners, orders=orders, codes=codes_.astype(np.uint8), places=places_)

    yield items(every, 0, codes, np.where(silent > 0, -1, every))
    own = np.flatnonzero(silent)
    yield items(own, 1, silent[own], -1)
    field_codes = {label: code for code, label in FIELDS.items()}
    for number, (label, texts) in enumerate(beside.items(), 1):
        own = np.flatnonzero(not_null(texts))
        yield items(own, field_codes[label], field_codes[label], number * count + own)
    for label, chosen in constants.items():
        yield items(np.flatnonzero(chosen), field_codes[label], field_codes[label], -1)
    if calls is not None:
        owners = np.repeat(every, calls.counts)
        behind = (1 + len(beside)) * count
        for part in range(3):
            own = np.flatnonzero(calls.codes[:, part])
            with_text = calls.codes[own, part] != NO_ARGUMENTS
            places = np.where(with_text, behind + part * len(calls.codes) + own, -1)
            yield items(owners[own], UNKNOWN + 1 + 3 * own + part, calls.codes[own, part], places)


def _fields_beside(
    parts: Mapping[str, pa.Array], count: int
) -> tuple[dict[str, pa.StringArray], dict[str, NDArray[np.bool_]], NDArray[np.bool_], list[CallColumns]]:
    """Return what messages have beside role and text.

    Args:
        parts: for each special key its values, one for each message.
        count: of messages.

    Returns:
        The texts of each field that any message has, by its label; bool[t], the messages that have a field with a
        constant, by its label; bool[t], the messages with something that columns cannot tell; the calls of each key.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    spelled: dict[str, list[pa.StringArray]] = {}
    constants: dict[str, NDArray[np.bool_]] = {}
    weights: dict[str, NDArray[np.float64]] = {}
    calls: list[CallColumns] = []
    unknown = np.zeros(count, dtype=bool)
    for name, part in sorted(parts.items(), key=lambda one: TEXT_FIELDS.index(one[0]) if one[0] in TEXT_FIELDS else -1):
        if part.null_count == len(part):
            continue
        texts = as_strings(part) if name in TEXT_FIELDS else None
        if texts is not None:
            if name == "reasoning":
                constants[ALIAS] = not_empty(texts)
            spelled.setdefault("reasoning" if name in REASONING else name, []).append(texts)
        elif name in WEIGHTS and _are_numbers(part.type):
            weights[name] = numbers_of(part.cast(pa.float64(), safe=False), null=-1)
        elif (read := CALL_KEYS.get(name)) is not None and (found := read(part)) is not None:
            calls += [found] if len(found.codes) else []
        else:
            unknown |= not_null(part)
    if weights:
        weight = np.ones(count)
        for name in WEIGHTS[::-1]:
            if name in weights:
                given = not_null(parts[name])
                weight[given] = weights[name][given]
        constants["weight=0"] = weight == 0
        unknown |= (weight != 0) & (weight != 1)
    for one, other in combinations(spelled.get("reasoning", []), 2):
        unknown |= bools_of(pc.coalesce(pc.not_equal(one, other), bool_array(np.zeros(count, dtype=bool))))
    labels = [label for label in FIELDS.values() if label in spelled]
    return {label: pc.coalesce(*spelled[label]) for label in labels}, constants, unknown, calls


def _are_numbers(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind))
