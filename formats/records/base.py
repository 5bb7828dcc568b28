"""What a record format must be able to do, and what it may do to be fast.

`RecordFormat` is the contract that packages of other people implement and register (see `registry`): one record in,
one conversation out. `ColumnarFormat` adds the batch path, which reads records as Arrow columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.json_schemas import JsonSchemas

if TYPE_CHECKING:
    import pyarrow as pa


class RecordFormat(Protocol):
    """Turns a raw record into a conversation."""

    name: str
    """What `--format` calls it."""
    fields: tuple[str, ...]
    """The fields that `--field FIELD=COLUMN` can rename."""

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether a record looks like this format. Must not raise."""
        ...

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return the conversation of a record.

        Raises:
            RecordError: the record cannot be used; it is left out and counted by the error's reason.
        """
        ...


@runtime_checkable
class MessageFormat(RecordFormat, Protocol):
    """A record format of messages that can say which of their keys it does not read."""

    def unread(self, record: object, fields: FieldMap) -> frozenset[str]:
        """Return the keys of a record's messages that have a value and are not read. Must not raise."""
        ...


@runtime_checkable
class ColumnarFormat(RecordFormat, Protocol):
    """A record format that can also read many records at once, from Arrow columns."""

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """Return the Arrow schemas with which JSON records like this one are read into columns.

        Returns:
            None where columns cannot hold this record itself.
        """
        ...

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """Return the conversations of a batch that columns can tell.

        A row may be given only where `layouts.put_together` makes of its labels and texts what `read(record, fields)`
        gives. Rows that need a closer look, and rows with an error, are left out; they are read one by one. One
        exception: a row with a blank text (nothing but white space) may be given even if `read` refuses it. The caller
        drops such rows.

        Args:
            batch: one row for each record, one column for each field. A field that a record lacks is null. Fields that
                `json_schemas` ignores may be missing.

        Returns:
            None where nothing can be said of any row.
        """
        ...
