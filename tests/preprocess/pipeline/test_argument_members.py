"""Members of arguments: taken apart for a whole batch as the standard library reads them, and put together again."""

import json
import math

import pytest
from argument_templates import ARGUMENTS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.filters import do_dictsort

from sft_shards.formats.columnar import ConversationColumns, text_labels
from sft_shards.formats.layouts import example_texts, json_text, put_together
from sft_shards.preprocess.pipeline import argument_members
from sft_shards.preprocess.pipeline.argument_members import take_arguments_apart
from sft_shards.preprocess.pipeline.layout_skeletons import conversation_of

pytestmark = pytest.mark.unit


def spoken(*objects):
    """Layout and texts of a conversation with a call for each object."""
    labels, texts = ["user", "assistant=null"], ["Hi"]
    for number, arguments in enumerate(objects):
        labels += ["call", "arguments={}"] if arguments == {} else ["call", "arguments"]
        texts += [f"get_{number}", *([json_text(arguments)] if arguments else [])]
    return (*labels, "assistant"), [*texts, "So"]


def unpacked(columns):
    texts, bounds = columns.texts.to_pylist(), columns.text_offsets.tolist()
    layouts = [columns.layouts[number] for number in columns.layout_ids.tolist()]
    spans = zip(columns.rows.tolist(), layouts, bounds, bounds[1:], strict=False)
    return {row: (layout, texts[first:last]) for row, layout, first, last in spans}


def member(key, value):
    """Labels and texts of a member, or None where the conversation stays as it is."""
    if not key.strip() or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, str) and value.strip():
        return ("key", "value"), [key, value]
    if isinstance(value, str) or value is None or isinstance(value, bool) or value in ({}, []):
        return ("key", f"value={json.dumps(value, ensure_ascii=False)}"), [key]
    kind = {dict: "object", list: "list"}.get(type(value), "number")
    return ("key", f"value_{kind}"), [key, json.dumps(value, ensure_ascii=False)]


def expected(objects, *, with_order=False):
    labels, texts = ["user", "assistant=null"], ["Hi"]
    for number, arguments in enumerate(objects):
        members = [member(key, value) for key, value in arguments.items()]
        if None in members:
            return spoken(*objects)
        labels += ["call", *([] if members else ["arguments={}"])]
        if with_order and len(members) > 1:
            labels.append(f"order={[list(arguments).index(key) for key, _ in do_dictsort(arguments)]}")
        labels += [one for own, _ in members for one in own]
        texts += [f"get_{number}", *(one for _, own in members for one in own)]
    return (*labels, "assistant"), [*texts, "So"]


OBJECTS = st.lists(ARGUMENTS, max_size=3)
HARD = {
    'a "b", {c': 'say: "so", [1, 2]}',
    "\\": "\\\\",
    "d": {"e": ["{", ",", {"f": []}], "g": "}"},
    "h": [[], {}, "]"],
}


@settings(max_examples=200)
@given(st.lists(OBJECTS, max_size=4), st.booleans())
@example(
    [[HARD], [{"a": 1}, {}, {"b": True, "c": -1e22}], [], [{"": 1}, {"x": "y"}], [{"x": " "}], [{"n": math.inf}]], True
)
@example([[{"n": -math.inf}], [{"n": math.nan}], [{"n": [math.nan]}]], False)
@example([[{"b": 1, "A": 2, "a": 3, "É": 4}, {"x": 1}], [{"a": 1, "b": 2}]], True)
def test_a_batch_is_taken_apart_as_json_is_read(batch, with_order):
    found = {3 * row: spoken(*objects) for row, objects in enumerate(batch)}
    taken = unpacked(take_arguments_apart(ConversationColumns.from_rows(found), with_order=with_order))
    assert taken == {3 * row: expected(objects, with_order=with_order) for row, objects in enumerate(batch)}


@given(st.lists(ARGUMENTS, min_size=1, max_size=3), st.booleans())
def test_members_are_put_together_to_the_same_conversation(objects, with_order):
    layout, texts = spoken(*objects)
    columns = take_arguments_apart(ConversationColumns.from_rows({0: (layout, texts)}), with_order=with_order)
    ((apart, members),) = unpacked(columns).values()
    assert len(text_labels(apart)) == len(members)
    assert all(text.strip() for text in members)
    one, other = conversation_of(layout, texts), conversation_of(apart, members)
    assert repr(one) == repr(other)
    assert one.digest() == other.digest()


@pytest.mark.parametrize("with_order", [False, True])
def test_the_example_of_members_has_their_labels(with_order):
    found = {0: spoken({"d": "b", "c": 1, "a": {"e": 1}, "f": [1], "b": None}, {"x": 1}, {"b": 1, "a": 2})}
    taken = unpacked(take_arguments_apart(ConversationColumns.from_rows(found), with_order=with_order))
    apart = taken[0][0]
    made = example_texts(apart)
    assert len(set(made)) == len(made)
    (_, called, _), _ = put_together(apart, made)
    objects = [call["function"]["arguments"] for call in called.tool_calls]
    assert [type(value) for value in objects[0].values()] == [str, int, dict, list, type(None)]
    again = ConversationColumns.from_rows({0: spoken(*objects)})
    assert unpacked(take_arguments_apart(again, with_order=with_order))[0][0] == apart


def test_the_values_of_usual_arguments_do_not_make_layouts():
    found = {row: spoken({f"key{row}": f"value {row}", "n": row, "o": {"p": row}}) for row in range(50)}
    taken = take_arguments_apart(ConversationColumns.from_rows(found))
    assert len({taken.layouts[number] for number in taken.layout_ids.tolist()}) == 1


def test_a_layout_that_becomes_too_long_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(argument_members, "MOST_LABELS", 7)
    found = {0: spoken({"a": "b", "c": "d"}), 1: spoken({"a": "b"}), 2: spoken({"a": "b"}, {})}
    taken = unpacked(take_arguments_apart(ConversationColumns.from_rows(found)))
    assert taken == {0: found[0], 1: expected([{"a": "b"}]), 2: found[2]}
    for limit, own in ((8, found[0]), (9, expected([{"a": "b", "c": "d"}], with_order=True))):
        monkeypatch.setattr(argument_members, "MOST_LABELS", limit)
        taken = take_arguments_apart(ConversationColumns.from_rows({0: found[0]}), with_order=True)
        assert unpacked(taken) == {0: own}


def test_a_long_blank_value_stays_as_it_is():
    found = {0: spoken({"a": " " * 100}), 1: spoken({"a": " " * 3})}
    assert unpacked(take_arguments_apart(ConversationColumns.from_rows(found))) == {
        0: found[0],
        1: (("user", "assistant=null", "call", "key", 'value="   "', "assistant"), ["Hi", "get_0", "a", "So"]),
    }
