"""Ids of calls under templates that measure or compare them, as Mistral's and Command A's: filled as Jinja renders them."""

import pytest
from both_paths import Both
from hypothesis import given, settings
from hypothesis import strategies as st
from template_texts import LISTED_TOOLS

from sft_shards.formats.conversation import Conversation, Turn

pytestmark = pytest.mark.unit
MEASURED = LISTED_TOOLS.replace(
    "{%- for call in m.tool_calls %}",
    "{%- for call in m.tool_calls %}"
    "{%- if call.id is not defined or call.id|length != 9 %}{{ raise_exception('nine letters') }}{%- endif %}",
)
CUT = LISTED_TOOLS.replace(
    "{%- for call in m.tool_calls %}",
    "{%- for call in m.tool_calls %}"
    "{%- if call.id is not defined or call.id|length < 9 %}{{ raise_exception('nine letters') }}{%- endif %}",
).replace("id=call.id", "id=call.id[-9:]").replace("m.tool_call_id |", "m.tool_call_id[-9:] |")  # fmt: skip

RESULT = "{{- '<|user|>' + {'content': m.content, 'call_id': m.tool_call_id | default('none')} | tojson }}"
NUMBER = (
    "{%- set n = namespace(at=0) %}{%- for other in messages %}{%- for call in other.tool_calls or [] %}"
    "{%- if call.id == m.tool_call_id %}{{- '#' + n.at | string }}{%- endif %}{%- set n.at = n.at + 1 %}"
    "{%- endfor %}{%- endfor %}"
)
NUMBERED = LISTED_TOOLS.replace(RESULT, "{{- '<|user|>' }}" + NUMBER + "{{- m.content }}")
"""Like Command A's: a result has the number of its call."""
ONCE = "{%- set seen = namespace(ids=[]) %}" + LISTED_TOOLS.replace(
    RESULT,
    "{{- ('<|user|>' if m.tool_call_id not in seen.ids else '<|again|>') + m.content }}"
    "{%- set seen.ids = seen.ids + [m.tool_call_id] %}",
)
assert RESULT in LISTED_TOOLS


def called(*ids, answered=None):
    calls = tuple(
        {"type": "function", "function": {"name": "get", "arguments": {"n": number}}, "id": one}
        for number, one in enumerate(ids)
    )
    results = [Turn(role="tool", content="sunny", tool_call_id=one) for one in answered or ids]
    turns = (Turn(role="user", content="Weather?"), Turn(role="assistant", tool_calls=calls), *results)
    return Conversation(turns=(*turns, Turn(role="assistant", content="Clear")))


@pytest.mark.parametrize("source", [MEASURED, CUT])
def test_calls_whose_ids_have_nine_letters_are_filled(source):
    both = Both(source)
    for in_columns in (False, True):
        rendered, fallbacks = both.render(
            called("abcdefghi"), called("123456789"), called("abc 45678", "x00000008"), in_columns=in_columns
        )
        assert (len(rendered), fallbacks) == (3, 0)


@pytest.mark.parametrize("source", [MEASURED, CUT])
def test_other_ids_are_left_to_jinja(source):
    both = Both(source)
    others = [called("abcdefgh"), called("abcdefghij"), called("é23456789"), called("é2345678")]
    more = [
        called("abcdefghi", "abc"),
        called("abcdefghi", answered=["abcdefghij"]),
        called("abc", answered=["abcdefghi"]),
    ]
    rendered, fallbacks = both.render(*others, *more, called("abcdefghi"), called("abcdefghi", "ABCDEFGHI"))
    assert fallbacks == len(others) + len(more)
    assert [reject.record for reject in rendered.rejects] == ([3, 4, 6, 7, 9] if source == MEASURED else [3, 6, 7, 9])


ID = st.text(st.sampled_from("ab1é"), min_size=8, max_size=10) | st.text(st.sampled_from("ab1"), min_size=9, max_size=9)


@settings(max_examples=25)
@given(st.lists(st.lists(ID, min_size=1, max_size=2).map(lambda ids: called(*ids)), min_size=1, max_size=4))
@pytest.mark.parametrize("source", [MEASURED, CUT])
def test_both_implementations_render_any_ids_the_same(source, found):
    """`Both` compares them."""
    Both(source).render(*found)


@pytest.mark.parametrize("source", [NUMBERED, ONCE])
@pytest.mark.parametrize("letters", ["a", "abcdefgh", "é"])
def test_calls_whose_ids_are_compared_are_filled(source, letters):
    both = Both(source)
    one, two, three = (letters + last for last in "123")
    found = [
        called(one),
        called(one, two),
        called(one, two, answered=[two, one]),
        called(one, two, answered=[one, one]),
        called(one, one),
        called(one, two, answered=[three]),
        called(one, two, answered=[three, two, three]),
        called("x0", "x1"),
    ]
    for in_columns in (False, True):
        rendered, fallbacks = both.render(*found, *found, in_columns=in_columns)
        assert (len(rendered), fallbacks) == (2 * len(found), 0)


NAMES = st.lists(st.sampled_from(["a", "b", "abcdefgh1", "abcdefgh2"]), min_size=1, max_size=3)


@settings(max_examples=15)
@given(st.lists(st.builds(lambda ids, own: called(*ids, answered=own), NAMES, NAMES), min_size=1, max_size=4))
@pytest.mark.parametrize("source", [NUMBERED, ONCE])
def test_both_implementations_render_any_compared_ids_the_same(source, found):
    _, fallbacks = Both(source).render(*found)
    assert fallbacks == 0


def test_ids_that_are_changed_before_they_are_compared_are_left_to_jinja():
    source = NUMBERED.replace("call.id == m.tool_call_id", "call.id | trim == m.tool_call_id | trim")
    assert source != NUMBERED
    _, fallbacks = Both(source).render(called("a "), called("a", answered=["a "]), called("a", "b"))
    assert fallbacks == 3


def test_ids_are_told_apart_under_templates_that_compare_them_alone():
    both = Both(LISTED_TOOLS.replace(RESULT, "{{- '<|user|>' + ('late' if m.content > 'k' else '') + m.content }}"))
    _, fallbacks = both.render(called("a"), called("a", "b"))
    assert fallbacks == 2
    assert not any(":" in label for layout in both.batch._skeletons._numbers for label in layout)
