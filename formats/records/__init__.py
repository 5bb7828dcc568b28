"""Record formats: raw records to conversations.

    records ──detect──▶ RecordFormat ──read──────────▶ Conversation, or a RecordError that is counted
                                     ──read_columns──▶ ConversationColumns: many records at once, from Arrow columns

In five lines:

    from sft_shards.formats.records import FieldMap, detect
    rows = [{"instruction": "Name a colour.", "output": "Blue."}]
    form = detect(enumerate(rows), FieldMap(), "rows")
    conversation = form.read(rows[0], FieldMap())
    print(form.name, [turn.role for turn in conversation.turns])

A format of your own is one class (see `RecordFormat`), registered under the entry point group `sft_shards.records`.
A `ColumnarFormat` also reads many text-only records at once.

Part of the plugin surface: other packages may import what `__all__` names.
"""

from sft_shards.formats.records.base import ColumnarFormat, MessageFormat, RecordFormat
from sft_shards.formats.records.detect import detect
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.json_schemas import JsonSchemas
from sft_shards.formats.records.registry import formats, get

__all__ = ["ColumnarFormat", "FieldMap", "JsonSchemas", "MessageFormat", "RecordFormat", "detect", "formats", "get"]
