"""Finding out which format the records of a file have, by asking every known format about a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from sft_shards.formats.errors import UsageError
from sft_shards.formats.records.base import RecordFormat
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.plain_text import plain_text
from sft_shards.formats.records.registry import YIELDING, formats

T = TypeVar("T")


def detect(sample: Iterable[tuple[int, object]], fields: FieldMap, where: str) -> RecordFormat:
    """Return the one format that the sampled records of a file have.

    Args:
        sample: (record number, record); records that could not be parsed are left out by the caller.
        where: the file, for messages.

    Raises:
        UsageError: no record fits any format, or they fit different ones.
    """
    first: dict[str, int] = {}
    unknown: tuple[int, object] | None = None
    for number, record in sample:
        name = format_of(record, fields)
        if name is not None:
            first.setdefault(name, number)
        elif unknown is None:
            unknown = number, record
    first = without_yielding(first)
    if len(first) == 1:
        return formats()[next(iter(first))]
    if first:
        found = ", ".join(f"{name} (record {number})" for name, number in first.items())
        raise UsageError(f"{where}: mixes formats: {found}; choose one with --format, or split the file")
    if unknown is None:
        raise UsageError(f"{where}: no readable record; is it JSONL, a JSON array or Parquet?")
    number, record = unknown
    hint = "; --format text trains on every token of it" if _has_text(record, fields) else ""
    keys = (
        f"columns {', '.join(map(str, record))}" if isinstance(record, Mapping) else f"a bare {type(record).__name__}"
    )
    raise UsageError(
        f"{where}: record {number} has {keys}, which is none of {', '.join(formats())}; "
        f"name the format with --format and its columns with --field{hint}"
    )


def format_of(record: object, fields: FieldMap) -> str | None:
    """Return the name of the first format that a record has; None where it has none."""
    return next((name for name, one in formats().items() if one.matches(record, fields)), None)


def without_yielding(found: Mapping[str, T]) -> dict[str, T]:
    """Return what was found of formats, by name, without those that yield to others which were found, too."""
    return {name: value for name, value in found.items() if name not in YIELDING} or dict(found)


def _has_text(record: object, fields: FieldMap) -> bool:
    """Return whether a record has a plain text. It is not taken for one: many data sets have rendered prompts there."""
    return isinstance(plain_text(record, fields), str)
