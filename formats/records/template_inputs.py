"""What a record gives its chat template beside the conversation: the columns `documents` and `chat_template_kwargs`.

The names are those of `apply_chat_template`, of TRL's data sets and of vLLM's requests. Both columns may hold JSON as a
text, since a table needs one type for all of its rows; null in them is as good as not given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import check_nesting, read_json
from sft_shards.formats.records.fields import ARGUMENTS, DOCUMENTS, MISSING, FieldMap
from sft_shards.formats.template_arguments import read_arguments


def read_template_inputs(record: object, fields: FieldMap) -> dict[str, Any]:
    """Return what a record gives the template, as fields of a `Conversation`.

    >>> read_template_inputs({"chat_template_kwargs": {"enable_thinking": False}}, FieldMap())
    {'template_arguments': {'enable_thinking': False}}

    Raises:
        RecordError: `wrong_type`, `broken_json`, `nested_too_deeply`.
    """
    found: dict[str, Any] = {}
    if isinstance(record, Mapping):
        for name, field, read in (
            (ARGUMENTS, "template_arguments", read_arguments),
            (DOCUMENTS, "documents", _read_documents),
        ):
            value = fields.look_up(record, name)
            if value is not MISSING and value and (given := read(value, name)):
                found[field] = given
    return found


def _read_documents(value: object, where: str) -> tuple[dict[str, Any], ...]:
    remedy = f"if it is not for the template, name another column, such as --field {where}=NONE"
    if isinstance(value, str):
        value = read_json(value, where, remedy) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise RecordError("wrong_type", f"{where} is no list of objects; {remedy}")
    check_nesting(value)
    documents = tuple({key: text for key, text in one.items() if text is not None} for one in value)
    try:
        json.dumps(documents, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError("wrong_type", f"{where}: a value is not JSON ({error})") from None
    return documents
