"""Raw rows to conversations.

    row ──detect──▶ RecordFormat ──read──▶ Conversation, or a RecordError that is counted

In five lines:

    from sft_shards.formats.records import FieldMap, detect
    rows = [{"instruction": "Name a colour.", "output": "Blue."}]
    form = detect(enumerate(rows), FieldMap(), "rows")
    conversation = form.read(rows[0], FieldMap())
    print(form.name, [turn.role for turn in conversation.turns])

A package of your own adds a format by the entry point group `sft_shards.records`.
"""

from sft_shards.formats.records.arrow_columns import Layout
from sft_shards.formats.records.detect import PlainFormat, RecordFormat, detect, formats, get
from sft_shards.formats.records.fields import FieldMap

__all__ = ["FieldMap", "Layout", "PlainFormat", "RecordFormat", "detect", "formats", "get"]
