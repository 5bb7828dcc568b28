"""Reading fields out of raw records: other spellings, nested columns by dots, and values of the wrong kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sft_shards.formats.errors import RecordError

MISSING = object()


@dataclass(frozen=True, kw_only=True)
class FieldMap:
    """What the user said about the columns of the records (`--field`) and the names of the roles (`--map-role`)."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the format → column of the record; dots step into nested columns."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role as it stands in the record → one of `sft_shards.formats.conversation.ROLES`."""

    def look_up(self, record: Mapping[str, Any], name: str, spellings: Sequence[str] = ()) -> Any:
        """The value of a field: of the column that the user named, else of the first spelling that has one. None where
        there is nothing but null, `MISSING` where there is nothing."""
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
        """The columns that may hold a field, the first one that has a value counts; none where it is a nested one."""
        if name not in self.columns:
            return (name, *spellings)
        path = self.columns[name]
        return () if "." in path else (path,)

    def role(self, raw: object, known: Mapping[str, str]) -> str:
        """The role of a turn, by the user's mapping, then the format's own names.

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
    """Follow a dotted path through nested mappings and lists; `MISSING` where it ends early."""
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
SIDE = ("tools", "functions", "history")
"""What else may stand beside the texts of a record; text-only records have none of it."""
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
BESIDE = (*SIDE, *MEDIA)
"""A value in one of these makes a record more than roles and texts."""


def refuse_media(record: Mapping[str, Any]) -> None:
    """A record that brings pictures or sound is a RecordError: without them its text would be another question."""
    for name in MEDIA:
        if record.get(name):
            raise RecordError("not_text", f"the record has {name}; only text can be trained here")


def text(value: object, where: str) -> str:
    """A value that must be text; a missing one, null or another kind is a RecordError."""
    if value is MISSING:
        raise RecordError("missing_field", f"no {where}; name its column with --field {where}=COLUMN")
    if not isinstance(value, str):
        raise RecordError("wrong_type", f"{where} is {type(value).__name__}, not text")
    return value


def optional_text(value: object, where: str) -> str:
    """Text, or "" where the field is missing or null."""
    return "" if value is MISSING or value is None else text(value, where)
