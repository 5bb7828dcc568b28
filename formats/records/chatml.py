"""ChatML in one text: `<|im_start|>role`, a newline, the content and `<|im_end|>` for each turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import string_array
from sft_shards.formats.columnar import ConversationColumns, utf8_buffers
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import (
    first_texts,
    have_nothing_beside,
    not_null,
    slice_texts,
)
from sft_shards.formats.records.fields import TEMPLATE_INPUTS, FieldMap, text
from sft_shards.formats.records.json_schemas import TEXT, FieldKind, JsonSchemas, schema, schemas_for
from sft_shards.formats.records.openai import ROLE_NAMES
from sft_shards.formats.records.role_sequences import TEXT_ONLY_ROLES, encode_roles, group_turns
from sft_shards.formats.records.template_inputs import read_template_inputs

if TYPE_CHECKING:
    import pyarrow as pa

START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>([^\n<]*)\r?\n(.*?)<\|im_end\|>\s*", re.DOTALL)
OPENING = re.compile(r"(<[^<>\s]*>)?\s*<\|im_start\|>")
"""How a text begins, but for white space; a token such as BOS may stand first."""
KNOWN = {role: role for role in TEXT_ONLY_ROLES}


class ChatML:
    """`{"text": "<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\nHi!<|im_end|>\\n"}`, or the bare text."""

    name = "chatml"
    fields: tuple[str, ...] = ("text", *TEMPLATE_INPUTS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether the text begins with `<|im_start|>`, behind white space or a token such as BOS."""
        value = self._text(record, fields)
        return isinstance(value, str) and OPENING.match(value.lstrip()) is not None

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return the turns; a content is what stands between the newline behind the role and `<|im_end|>`.

        Raises:
            RecordError: `malformed_chatml` where anything stands outside a turn, such as a turn that was cut off
                before its `<|im_end|>`; or as for any conversation.
        """
        value = text(self._text(record, fields), "text")
        begin = value.find(START)
        if begin < 0:
            raise RecordError("malformed_chatml", f"no {START} in the text")
        turns = []
        while begin < len(value):
            found = TURN.match(value, begin)
            if found is None or START in found[2]:
                rest = value[begin : begin + 40]
                raise RecordError("malformed_chatml", f"character {begin}: {rest!r} is not a whole turn")
            turns.append(Turn(role=fields.role(found[1].strip(), ROLE_NAMES), content=found[2]))
            begin = found.end()
        return Conversation(turns=tuple(turns), **read_template_inputs(record, fields))

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        names = fields.column("text")
        if not names:
            return None
        wanted: dict[str, FieldKind] = {names[0]: TEXT}
        if isinstance(record, str):
            return JsonSchemas(strict=schema(tuple(wanted.items())), tolerant=None, value_field=names[0])
        return schemas_for(record, wanted, wanted, (), fields) if type(record) is dict and names[0] in record else None

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`."""
        texts, certain = first_texts(batch, fields.column("text"))
        bare = have_nothing_beside(batch, fields.beside(TEMPLATE_INPUTS))
        return _read_texts(texts, certain & not_null(texts) & bare, fields)

    @staticmethod
    def _text(record: object, fields: FieldMap) -> Any:
        return fields.look_up(record, "text") if isinstance(record, Mapping) else record


def _read_texts(texts: pa.StringArray, rows: NDArray[np.bool_], fields: FieldMap) -> ConversationColumns:
    """Read those texts that are whole turns with nothing but white space in between.

    `<|im_start|>` and `<|im_end|>` are searched for in the bytes of all texts at once. Take three texts, of which the
    second lacks an end, S standing for the start token and E for the end token, a byte each, and ⏎ for a newline:

        bytes         Su⏎hiE⏎Sa⏎yoE Su⏎hi Sa⏎byeE         (spaces added here: between the texts is nothing)
        text_offsets  [0, 13, 18, 25]
        starts        [0, 7, 13, 18]      ends     [5, 12, 24]
        start_counts  [2, 1, 1]           of each text; end counts [2, 0, 1]: the second text is dropped
        owners        [0, 0, 2]           the text of each turn that is left
        line_ends     [2, 9, 20]          the newline behind each role name
        roles         u, a, a             the bytes from behind S up to the newline
        contents      hi, yo, bye         the bytes from behind the newline up to E

    Args:
        texts: n texts; null where there is none.
        rows: bool[n]: which of them to read.
    """

    values, text_offsets = utf8_buffers(texts)
    raw = values.tobytes()
    starts, ends = _find_token(values, text_offsets, START), _find_token(values, text_offsets, END)
    starts_before, ends_before = (np.searchsorted(found, text_offsets) for found in (starts, ends))
    start_counts, end_counts = np.diff(starts_before), np.diff(ends_before)
    rows = rows & (start_counts > 0) & (start_counts == end_counts)
    rows[rows] = starts[starts_before[:-1][rows]] == text_offsets[:-1][rows]  # nothing before the first turn
    owners = np.repeat(np.arange(len(texts)), start_counts)
    starts, ends = starts[rows[owners]], ends[rows[np.repeat(np.arange(len(texts)), end_counts)]]
    owners, turns = owners[rows[owners]], np.where(rows, start_counts, 0)
    role_begins = starts + len(START)
    newlines = np.flatnonzero(values == ord("\n"))
    line_ends = np.append(newlines, len(values))[np.searchsorted(newlines, role_begins)]
    turn_ends = ends + len(END)
    next_begins = np.append(starts[1:], len(values))  # of the next turn, or the end of the text
    is_last = np.append(owners[1:] != owners[:-1], True) if len(owners) else np.zeros(0, dtype=bool)
    next_begins[is_last] = text_offsets[1:][owners[is_last]]
    whole = (line_ends < ends) & (turn_ends <= next_begins)
    # Between turns stands one newline, as a rule; anything else is looked at.
    gap = whole & (next_begins - turn_ends > 0)
    gap[gap] = (next_begins[gap] - turn_ends[gap] > 1) | (values[turn_ends[gap]] != ord("\n"))
    for turn in np.flatnonzero(gap).tolist():
        whole[turn] = raw[turn_ends[turn] : next_begins[turn]].decode().isspace()
    rows[owners[~whole]] = False
    kept = rows[owners]
    names = [raw[begin:end] for begin, end in zip(role_begins[kept].tolist(), line_ends[kept].tolist(), strict=True)]
    codes, table = encode_roles(string_array(map(bytes.decode, names)), fields, KNOWN)
    contents = slice_texts(values, line_ends[kept] + 1, ends[kept])
    return group_turns(rows, np.where(rows, turns, 0), codes, table, contents)


def _find_token(values: NDArray[np.uint8], text_offsets: NDArray[np.int32], token: str) -> NDArray[np.int64]:
    """Return int64[k]: the offsets at which a token begins within a text, and does not run over its end.

    Its first byte is searched for, and the others are compared where that stands: `<` is rare in texts.
    """
    word = token.encode()
    found = np.flatnonzero(values[: max(len(values) - len(word) + 1, 0)] == word[0])
    for position in range(1, len(word)):
        found = found[values[found + position] == word[position]]
    owners = np.searchsorted(text_offsets, found, side="right") - 1
    within: NDArray[np.int64] = found[found + len(word) <= text_offsets[owners + 1]]
    return within
