"""Self-instruct's records: an instruction and its instances, each an input with an output."""

from __future__ import annotations

from collections.abc import Mapping

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.alpaca import Alpaca
from sft_shards.formats.records.fields import MISSING, SYSTEM, TEMPLATE_INPUTS, FieldMap

INSTANCES = "instances"


class Instances:
    """`{"instruction": str, "instances": [{"input": str, "output": str}]}`."""

    name = "instances"
    fields: tuple[str, ...] = ("instruction", INSTANCES, SYSTEM[0], *TEMPLATE_INPUTS)

    def __init__(self) -> None:
        self._alpaca = Alpaca()

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether the record has an instruction and a list of instances, the first of them with an output."""
        if not isinstance(record, Mapping):
            return False
        found = fields.look_up(record, INSTANCES)
        first = found[0] if isinstance(found, list) and found else None
        return isinstance(first, Mapping) and self._alpaca.matches({**record, **first}, fields)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return the conversation of the only instance.

        Raises:
            RecordError: `missing_field`, `wrong_type` (also where there are several instances: a record is one
                conversation), or as for Alpaca's records.
        """
        if not isinstance(record, Mapping):
            raise RecordError("wrong_type", f"a record with instances is an object, this is {type(record).__name__}")
        found = fields.look_up(record, INSTANCES)
        if found is MISSING:
            raise RecordError("missing_field", f"no {INSTANCES}; name its column with --field {INSTANCES}=COLUMN")
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise RecordError("wrong_type", f"{INSTANCES} is not a list of objects")
        if len(found) != 1:
            raise RecordError("wrong_type", f"{len(found)} {INSTANCES}; write a record for each, see docs/formats.md")
        return self._alpaca.read({**record, **found[0]}, fields)
