"""`documents` and `chat_template_kwargs` of records of every format."""

import json
from datetime import date

import pytest

from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import FieldMap, get

pytestmark = pytest.mark.unit

RECORDS = {
    "openai": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "output": "a"},
    "chatml": {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
}
DOCUMENTS = [{"title": "T", "text": "X", "score": 1}, {"text": "Y", "title": None}]
ARGUMENTS = {"enable_thinking": False, "reasoning_effort": None}


@pytest.mark.parametrize("form", RECORDS)
@pytest.mark.parametrize("spell", [lambda value: value, json.dumps], ids=["values", "texts"])
def test_a_record_of_any_format_may_bring_both(form, spell):
    record = {**RECORDS[form], "documents": spell(DOCUMENTS), "chat_template_kwargs": spell(ARGUMENTS)}
    found = get(form).read(record, FieldMap())
    assert found.documents == ({"title": "T", "text": "X", "score": 1}, {"text": "Y"})
    assert found.template_arguments == {"enable_thinking": False}, "null is as good as not given"
    assert [turn.content for turn in found.turns] == ["q", "a"]
    renamed = {**RECORDS[form], "meta": {"ctx": DOCUMENTS[:1]}, "documents": 5, "kw": {"x": 1}}
    fields = FieldMap(columns={"documents": "meta.ctx", "chat_template_kwargs": "kw"})
    found = get(form).read(renamed, fields)
    assert (found.documents, found.template_arguments) == ((DOCUMENTS[0],), {"x": 1})
    assert set(fields.columns) <= set(get(form).fields)


@pytest.mark.parametrize("form", RECORDS)
def test_what_is_empty_is_not_there(form):
    for nothing in (None, "", " ", [], {}, "null", "[]"):
        record = {**RECORDS[form], "documents": nothing}
        assert get(form).read(record, FieldMap()).text_only() is not None
    for nothing in (None, "", " ", {}, "null", "{}", {"x": None}):
        record = {**RECORDS[form], "chat_template_kwargs": nothing}
        assert get(form).read(record, FieldMap()).text_only() is not None


@pytest.mark.parametrize(
    ("more", "reason", "detail"),
    [
        ({"documents": ["a"]}, "wrong_type", "documents is no list of objects; .*--field documents=NONE"),
        ({"documents": {"a": "b"}}, "wrong_type", "documents is no list of objects"),
        ({"documents": "see below"}, "broken_json", "documents: .*--field documents=NONE"),
        ({"documents": [{"at": date(2024, 1, 1)}]}, "wrong_type", "documents: a value is not JSON"),
        ({"documents": [{"at": float("nan")}]}, "wrong_type", "documents: a value is not JSON"),
        ({"documents": [json.loads("[" * 300 + "]" * 300), {}]}, "wrong_type", "no list of objects"),
        ({"documents": [{"a": json.loads("[" * 300 + "]" * 300)}]}, "nested_too_deeply", "200"),
        ({"chat_template_kwargs": ["a"]}, "wrong_type", "chat_template_kwargs is list, not an object"),
        ({"chat_template_kwargs": {"messages": []}}, "wrong_type", "messages: has a meaning of its own"),
        ({"chat_template_kwargs": {"day": date(2024, 1, 1)}}, "wrong_type", "a value is not JSON"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", RECORDS)
def test_a_wrong_type_is_a_reject_with_a_reason(form, more, reason, detail):
    with pytest.raises(RecordError, match=f"^{reason}: .*{detail}"):
        get(form).read({**RECORDS[form], **more}, FieldMap())
    assert get(form).read({**RECORDS[form], **more}, FieldMap(columns=dict.fromkeys(more, "none"))).text_only()
