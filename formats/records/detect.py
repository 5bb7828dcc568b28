"""Finding out a file's format from its records, and the formats there are: ours and those of other packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from sft_shards.formats.conversation import Conversation, Plain
from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.records.alpaca import Alpaca
from sft_shards.formats.records.arrow_columns import Layout
from sft_shards.formats.records.chatml import ChatML
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.openai import OpenAI
from sft_shards.formats.records.sharegpt import ShareGPT

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = "sft_shards.records"
"""Entry point group: a class or object with the members of `RecordFormat` registers under its name."""


class RecordFormat(Protocol):
    """What turns a raw row into a conversation."""

    name: str
    fields: tuple[str, ...]
    """The fields that `--field FIELD=COLUMN` can rename."""

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Whether a record looks like this format; must not raise."""
        ...

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """The conversation, or a `RecordError` that says what is wrong with the record."""
        ...


class PlainFormat(RecordFormat, Protocol):
    """A format with a short cut for records that are nothing but roles and texts. It is optional."""

    def layout(self, record: object, fields: FieldMap) -> Layout | None:
        """How JSON records like this one are read into columns; None where it is not plain itself."""
        ...

    def plain(self, batch: pa.RecordBatch, fields: FieldMap) -> Plain | None:
        """Those of several records of which `read(record, fields).plain()` gives something, and what it gives; not one
        that takes a closer look, or is an error. None where one cannot tell of any.

        Whoever calls looks at the texts: where one of them has nothing but white space, what is given here of its
        record means nothing.

        Args:
            batch: a row for each record, and a column for each field; a field that a record has not is null. Fields
                that `layout` lets be may be missing.
        """
        ...


@cache
def formats() -> dict[str, RecordFormat]:
    """Every known format by name: the built-in ones, then those registered under `sft_shards.records`."""
    known: dict[str, RecordFormat] = {one.name: one for one in (Alpaca(), ChatML(), OpenAI(), ShareGPT())}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found = point.load()
        known[point.name] = found() if isinstance(found, type) else found
    return known


def get(name: str) -> RecordFormat:
    """A format by its name; UsageError with the nearest one otherwise."""
    if name not in formats():
        raise UsageError(f"no record format {name!r}; {nearest(name, formats())}")
    return formats()[name]


def detect(sample: Iterable[tuple[int, object]], fields: FieldMap, where: str) -> RecordFormat:
    """The one format that the sampled records of a file have.

    Args:
        sample: (record number, record); records that could not be parsed are left out by the caller.
        where: the file, for messages.

    Raises:
        UsageError: no record fits any format, or they fit different ones.
    """
    first: dict[str, int] = {}
    strange: tuple[int, object] | None = None
    for number, record in sample:
        fits = [one.name for one in formats().values() if one.matches(record, fields)]
        if fits:
            first.setdefault(fits[0], number)
        elif strange is None:
            strange = number, record
    if len(first) == 1:
        return formats()[next(iter(first))]
    if first:
        found = ", ".join(f"{name} (record {number})" for name, number in first.items())
        raise UsageError(f"{where}: mixes formats: {found}; choose one with --format, or split the file")
    if strange is None:
        raise UsageError(f"{where}: no readable record; is it JSONL, a JSON array or Parquet?")
    number, record = strange
    keys = (
        f"columns {', '.join(map(str, record))}" if isinstance(record, Mapping) else f"a bare {type(record).__name__}"
    )
    raise UsageError(
        f"{where}: record {number} has {keys}, which is none of {', '.join(formats())}; "
        "name the format with --format and its columns with --field"
    )
