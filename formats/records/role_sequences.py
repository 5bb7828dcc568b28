"""Role sequences of many conversations at once, compared as numbers.

A batch holds thousands of conversations and a handful of different role sequences. Each role name becomes a code of
one byte, the codes of a conversation become one integer, and numpy finds the different ones; Python looks at each
role sequence once and not at each conversation.

Three conversations (h human, g gpt, x a name that nobody knows), four, two and two texts long:

    names    h g h g | h g | h x
    codes    0 1 0 1 | 0 1 | 0 2                         a code is an index into the names that occur: [h, g, x]
    lengths  [4, 2, 2]
    keys     [4:0101, 2:01, 2:02]                        length in the highest byte, one byte for each code
    ids      [2, 0, 1] into [(h, g), (h, x), (h, g, h, g)]
    result   the first two conversations; the third has an unknown role and is read one by one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, numbers_of
from sft_shards.formats.columnar import ConversationColumns, Layout, prefix_sums
from sft_shards.formats.layouts import ALIAS
from sft_shards.formats.records.fields import FieldMap

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_ONLY_ROLES = frozenset({"system", "user", "assistant", "tool"})
CALLING = "function_call"
"""The role of ShareGPT's turns whose text is a call in JSON: an assistant's, without a content."""
CONSTANTS = {242: "=null", 243: '=""'}
"""Codes behind that of a role whose content is a constant, and what its label ends with (see `layouts`)."""
CALLS = {244: "call", 245: "call_id", 246: "arguments", 247: "arguments={}", 248: "arguments_text"}
"""Codes of what a call has, and their labels."""
FIELDS = {249: "reasoning", 250: ALIAS, 251: "name", 252: "tool_call_id", 253: "weight=0"}
"""Codes of what a turn has beside its text, and their labels."""
LEADING_SYSTEM, UNKNOWN = 254, 255
"""Codes of a system prompt that stands beside the list of messages, and of a role that columns do not hold."""
SPECIAL: Mapping[int, str | None] = {**FIELDS, **CALLS, LEADING_SYSTEM: "system", UNKNOWN: None}
FIRST_CODE_OF_ITS_OWN = min(CONSTANTS)
"""Roles have lower codes."""
PACKED = 7
"""Codes that fit into an integer of eight bytes beside their number."""
LONG = np.uint64(0xFF << 56)
"""Keys from here on are running numbers of longer role sequences."""


class RoleSequenceTable(dict[bytes, Layout | None]):
    """Layouts by their codes, one byte for each label; None for one with a role that columns do not hold.

    Args:
        roles: what each code stands for; None for a role that columns do not hold.

    Attributes:
        calling: bool[256]: whether a code stands for a turn whose text is a call.
    """

    def __init__(self, roles: Sequence[str | None]) -> None:
        super().__init__()
        self.calling = np.asarray([code < len(roles) and roles[code] == CALLING for code in range(256)], dtype=bool)
        held = ["assistant" if role == CALLING else role for role in roles]
        self._roles = [role if role in TEXT_ONLY_ROLES else None for role in held]

    def __missing__(self, codes: bytes) -> Layout | None:
        return self.setdefault(codes, self._layout(codes))

    def _layout(self, codes: bytes) -> Layout | None:
        labels: list[str] = []
        for code in codes:
            if code in CONSTANTS:
                labels[-1] += CONSTANTS[code]
                continue
            label = SPECIAL[code] if code in SPECIAL else self._roles[code]
            if label is None:
                return None
            labels.append(label)
        return tuple(labels) if any(label.partition("=")[0] == "assistant" for label in labels) else None

    def spells(self, role: str) -> NDArray[np.bool_]:
        """Return bool[256]: whether a code stands for a role."""
        spelled = [code < len(self._roles) and self._roles[code] == role for code in range(256)]
        return np.asarray(spelled, dtype=bool)


def encode_roles(
    names: pa.StringArray, fields: FieldMap, known: Mapping[str, str | None]
) -> tuple[NDArray[np.uint8], RoleSequenceTable]:
    """Return the code of each turn's role, u8[t], and what the codes stand for.

    Args:
        names: the role of each turn as its record spells it.
        known: the format's own names of roles; those that the user gave in `fields` come first.
    """
    encoded = names.dictionary_encode()
    codes = numbers_of(encoded.indices, null=UNKNOWN)
    words = encoded.dictionary.to_pylist()
    roles = [fields.roles.get(word) or known.get(word) for word in words[:FIRST_CODE_OF_ITS_OWN]]
    return np.where(codes < FIRST_CODE_OF_ITS_OWN, codes, UNKNOWN).astype(np.uint8), RoleSequenceTable(roles)


def group_turns(
    rows: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    codes: NDArray[np.uint8],
    table: RoleSequenceTable,
    texts: pa.StringArray,
    text_counts: NDArray[np.int64] | None = None,
) -> ConversationColumns:
    """Return the conversations of those rows whose roles are known.

    Args:
        rows: bool[n]: the rows that columns can tell.
        lengths: int64[n]: how many turns each row has, fields counted too.
        codes: u8[sum(lengths)]: the role of each turn, or the code of a field.
        texts: the text of each turn and field.
        text_counts: int64[n]: how many texts each row has (default: as many as turns).
    """

    counts = lengths if text_counts is None else text_counts
    ids, distinct = _distinct(lengths, codes)
    known = [table[one] for one in distinct]
    keep = rows & np.asarray([roles is not None for roles in known], dtype=bool)[ids]
    return ConversationColumns(
        rows=np.flatnonzero(keep),
        layouts=[roles or () for roles in known],
        layout_ids=ids[keep],
        texts=texts if keep.all() else texts.filter(bool_array(np.repeat(keep, counts))),
    )


def _distinct(lengths: NDArray[np.int64], codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[bytes]]:
    """Return which of the distinct code sequences each conversation has, int64[n], and these.

    Up to seven codes are compared as an integer of eight bytes; for longer sequences there is no such short cut.
    """
    offsets = prefix_sums(lengths)
    position = np.arange(len(codes)) - np.repeat(offsets[:-1], lengths)
    totals = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes.astype(np.uint64) << (np.minimum(position, PACKED) * 8).astype(np.uint64), out=totals[1:])
    keys = (totals[offsets[1:]] - totals[offsets[:-1]]) | (lengths.astype(np.uint64) << np.uint64(8 * PACKED))
    raw, bounds = codes.tobytes(), offsets.tolist()
    long: dict[bytes, int] = {}
    for at in np.flatnonzero(lengths > PACKED).tolist():
        keys[at] = LONG + np.uint64(long.setdefault(raw[bounds[at] : bounds[at + 1]], len(long)))
    _, examples, ids = np.unique(keys, return_index=True, return_inverse=True)
    return ids, [raw[bounds[at] : bounds[at + 1]] for at in examples.tolist()]
