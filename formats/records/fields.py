"""Looking up the fields of raw records: other spellings, nested columns by dots, values of the wrong type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sft_shards.formats.errors import RecordError

MISSING = object()
"""Stands for a field that a record does not have, as opposed to one that is null."""


@dataclass(frozen=True, kw_only=True)
class FieldMap:
    """The user's own names of columns (`--field`) and roles (`--map-role`)."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the format → column of the record; dots step into nested columns."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role as it stands in the record → one of `sft_shards.formats.conversation.ROLES`."""

    def look_up(self, record: Mapping[str, Any], name: str, spellings: Sequence[str] = ()) -> Any:
        """Return the value of a field: of the column that the user named, else of the first spelling that has one.

        Returns:
            None where the columns are null, `MISSING` where there are none.
        """
        if name in self.columns:
            return walk(record, self.columns[name])
        found = MISSING
        for spelling in (name, *spellings):
            if spelling in record:
                found = record[spelling]
                if found is not None:
                    break
        return found

    def column(self, name: str, spellings: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the top-level columns that may hold a field, of which the first that has a value counts.

        Returns:
            Nothing where the user named a nested column.
        """
        if name not in self.columns:
            return (name, *spellings)
        path = self.columns[name]
        return () if "." in path else (path,)

    def beside(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the top-level columns of fields in which a value makes a record more than roles and texts.

        Args:
            names: of the fields (default: `BESIDE`).
        """
        return tuple(self.columns.get(name, name).partition(".")[0] for name in (BESIDE if names is None else names))

    def role(self, raw: object, known: Mapping[str, str]) -> str:
        """Return the role of a turn, by the user's names and then by the format's own.

        Raises:
            RecordError: `unknown_role`.
        """
        if isinstance(raw, str):
            if raw in self.roles:
                return self.roles[raw]
            if raw.lower() in known:
                return known[raw.lower()]
        raise RecordError("unknown_role", f"{raw!r}; name what it stands for with --map-role {raw}=user|assistant|…")


def walk(record: object, path: str) -> Any:
    """Return what a dotted path leads to through nested mappings and lists; `MISSING` where it ends early.

    >>> walk({"chat": [{"text": "Hi"}]}, "chat.0.text")
    'Hi'
    """
    if isinstance(record, Mapping) and path in record:
        return record[path]
    here = record
    for step in path.split("."):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, Sequence) and not isinstance(here, str) and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            return MISSING
    return here


SYSTEM = ("system", "system_prompt")
"""Columns for a system prompt that stands beside the conversation."""
ARGUMENTS, DOCUMENTS = "chat_template_kwargs", "documents"
TEMPLATE_INPUTS = (ARGUMENTS, DOCUMENTS)
"""Columns that are for the chat template; see `template_inputs`."""
SIDE = ("tools", "functions", "history", *TEMPLATE_INPUTS)
"""Other columns that a text-only record has no value in."""
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
BESIDE = (*SIDE, *MEDIA)
"""Columns in which a value makes a record more than roles and texts."""


TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = ("reasoning", "thinking")
CALL_PARTS = ("tool_call", "tool_use")
TEXT_KEYS = ("text", "value")
"""Keys of a part, of which the first that is not null is its text; a key named as its type is before these, where it is
reasoning."""


def refuse_media(record: Mapping[str, Any]) -> None:
    """Refuse a record with pictures or sound: without them its text would ask something else.

    Raises:
        RecordError: `not_text`.
    """
    for name in MEDIA:
        if record.get(name):
            raise RecordError("not_text", f"the record has {name}; only text can be trained here")


def text(value: object, where: str) -> str:
    """Return a value that must be text.

    Raises:
        RecordError: `missing_field`, or `wrong_type` for null and anything else.
    """
    if value is MISSING:
        raise RecordError("missing_field", f"no {where}; name its column with --field {where}=COLUMN")
    if not isinstance(value, str):
        raise RecordError("wrong_type", f"{where} is {type(value).__name__}, not text")
    return value


def optional_text(value: object, where: str) -> str:
    """Return a text, or "" where the field is missing or null.

    Raises:
        RecordError: `wrong_type`.
    """
    return "" if value is MISSING or value is None else text(value, where)
