"""Layouts: what is taken apart is put together again, and what has no layout is known."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich_conversations import CONVERSATION

from sft_shards.formats.columnar import text_labels
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import example_texts, json_text, put_together, take_apart, take_thoughts_apart

pytestmark = pytest.mark.unit
CALL = {"type": "function", "function": {"name": "get", "arguments": {"a": [1, None]}}, "id": "c1"}
TOOL = {"type": "function", "function": {"name": "get", "description": "d", "strict": False, "parameters": {"a": {}}}}


@given(CONVERSATION)
def test_what_is_taken_apart_is_put_together_again(conversation):
    parts = take_apart(conversation)
    if parts is None:
        return
    layout, texts = parts
    assert len(text_labels(layout)) == len(texts)
    assert all(text.strip() for text in texts)
    turns, tools = put_together(layout, texts)
    assert (tuple(turns), tuple(tools)) == (conversation.turns, conversation.tools)


def test_calls_are_put_together_in_the_order_of_openai_s_keys():
    call = {"id": "c1", **CALL}
    conversation = Conversation(turns=(Turn(role="user", content="a"), Turn(role="assistant", tool_calls=(call,))))
    turns, _ = put_together(*take_apart(conversation))
    assert json.dumps(turns[1].tool_calls) == json.dumps([call])


@given(CONVERSATION)
def test_thoughts_are_taken_apart_behind_all_else(conversation):
    """Without the words "think>" a layout leaves them in the texts, as columns do."""
    marked = [
        replace(turn, content=turn.content and turn.content.replace("think>", "thinkX")) for turn in conversation.turns
    ]
    parts = take_apart(replace(conversation, turns=tuple(marked)))
    if parts is not None:
        layout, texts = parts
        contents = [text.replace("thinkX", "think>") for text in texts]
        assert take_thoughts_apart(layout, contents) == take_apart(conversation)


@given(CONVERSATION)
def test_the_example_of_a_layout_has_that_layout(conversation):
    parts = take_apart(conversation)
    if parts is None:
        return
    texts = example_texts(parts[0])
    assert len(set(texts)) == len(texts)
    turns, tools = put_together(parts[0], texts)
    assert take_apart(Conversation(turns=tuple(turns), tools=tuple(tools))) == (parts[0], texts)


@given(CONVERSATION)
def test_a_text_only_conversation_has_its_role_sequence_as_layout(conversation):
    text_only = conversation.text_only()
    if text_only is not None and all(text.strip() and "think>" not in text for text in text_only[1]):
        assert take_apart(conversation) == text_only


def test_labels_name_what_a_conversation_holds():
    turns = (
        Turn(role="user", content="Hi"),
        Turn(role="assistant", content=None, reasoning="I look", reasoning_alias=True, tool_calls=(CALL,)),
        Turn(role="tool", content="sunny", name="get", tool_call_id="c1"),
        Turn(role="assistant", content="<think>\n\nSo\n</think>\n\nIt is", weight=0),
    )
    layout, texts = take_apart(Conversation(turns=turns, tools=(TOOL,)))
    assert layout[0].startswith('offer={"type": "function", "function": {"name": "')
    assert layout[1:] == (
        *("text", "text", "json", "user", "assistant=null", "reasoning", "reasoning_alias=true"),
        *("call", "call_id", "arguments", "tool", "name", "tool_call_id"),
        *("assistant+<think>\n\n", "+\n</think>\n\n", "weight=0"),
    )
    assert texts[:3] == ["get", "d", '{"a": {}}']
    assert texts[5:8] == ["get", "c1", '{"a": [1, null]}']
    assert texts[-2:] == ["So", "It is"]


@pytest.mark.parametrize(
    "turn",
    [
        Turn(role="assistant", content="<think>a</think>b<think>c</think>d"),
        Turn(role="assistant", content="a<think>b</think>c"),
        Turn(role="assistant", content="a<think>b"),
        Turn(role="assistant", content="a", tool_calls=({"function": {"name": "x", "arguments": {}}, "more": 1},)),
        *(
            Turn(role="assistant", content="a", tool_calls=({**CALL, "function": {"name": name, "arguments": {}}},))
            for name in ("a  b", " a", "a ", "naïve", "a\nb")
        ),
        Turn(role="assistant", content="a", tool_calls=({**CALL, "function": {"name": "x", "arguments": [1]}},)),
    ],
)
def test_what_has_no_layout(turn):
    assert take_apart(Conversation(turns=(Turn(role="user", content="q"), turn))) is None


def test_documents_and_template_arguments_are_in_no_layout():
    turns = (Turn(role="user", content="q"), Turn(role="assistant", content="a"))
    assert take_apart(Conversation(turns=turns, documents=({"title": "t", "text": "x"},))) is None
    assert take_apart(Conversation(turns=turns, template_arguments={"enable_thinking": False})) is None


def test_values_that_json_has_no_type_for_have_no_layout():
    turns = (Turn(role="user", content="q"), Turn(role="assistant", content="a"))
    try:
        conversation = Conversation(turns=turns, tools=({"name": "x", "parameters": {"a": object()}},))
    except (RecordError, TypeError):
        return
    assert take_apart(conversation) is None


def test_every_field_of_a_turn_is_in_the_layout():
    """A field that layouts do not know would be lost without a word."""
    known = {"role", "content", "context", "reasoning", "reasoning_alias", "tool_calls", "name", "tool_call_id"}
    assert {field.name for field in fields(Turn)} == {*known, "weight"}
    assert {field.name for field in fields(Conversation)} == {"turns", "tools", "documents", "template_arguments"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_json_is_what_the_standard_library_writes(value):
    assert json_text(value) == json.dumps(value, ensure_ascii=False)
