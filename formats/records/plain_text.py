"""Plain text for continued pre-training: `{"text": str}`, or the bare text.

It is never detected. A column `text` often holds prompts and answers that somebody rendered, with markers of their own;
every token of these would carry loss, the question's too, and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import PLAIN_TEXT, Conversation, Turn
from sft_shards.formats.records.arrow_columns import first_texts, have_nothing_beside, not_null, take_texts
from sft_shards.formats.records.fields import MEDIA, FieldMap, refuse_media, text
from sft_shards.formats.records.json_schemas import TEXT, FieldKind, JsonSchemas, schema, schemas_for

if TYPE_CHECKING:
    import pyarrow as pa

SPELLINGS = ("content", "document")
"""Other names of the column, which data sets of web pages and of code have."""


class PlainText:
    """`{"text": "Once upon a time …"}`, or the bare text; every token carries loss."""

    name = "text"
    fields: tuple[str, ...] = ("text",)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return False: only `--format text` says that a text is not a rendered conversation."""
        return False

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return the text, untouched.

        Raises:
            RecordError: `missing_field`, `wrong_type`, `not_text`, `empty`, or as for any conversation.
        """
        if isinstance(record, Mapping):
            refuse_media(record)
        return Conversation(turns=(Turn(role=PLAIN_TEXT, content=text(plain_text(record, fields), "text")),))

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        names = fields.column("text", SPELLINGS)
        if not names:
            return None
        if isinstance(record, str):
            return JsonSchemas(strict=schema(((names[0], TEXT),)), tolerant=None, value_field=names[0])
        found = [name for name in names if type(record) is dict and record.get(name) is not None]
        if not found or not isinstance(record, dict):
            return None
        wanted: dict[str, FieldKind] = {found[0]: TEXT}
        return schemas_for(record, wanted, wanted, [name for name in names if name != found[0]], fields)

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`."""
        texts, certain = first_texts(batch, fields.column("text", SPELLINGS))
        rows = certain & not_null(texts) & have_nothing_beside(batch, MEDIA)
        return ConversationColumns(
            rows=np.flatnonzero(rows),
            layouts=[(PLAIN_TEXT,)],
            layout_ids=np.zeros(int(rows.sum()), dtype=np.int64),
            texts=take_texts([texts], np.flatnonzero(rows)),
        )


def plain_text(record: object, fields: FieldMap) -> Any:
    """Return the text that a record has or is; `MISSING` where it has none."""
    return fields.look_up(record, "text", SPELLINGS) if isinstance(record, Mapping) else record
