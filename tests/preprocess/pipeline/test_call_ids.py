"""Ids of calls under templates that measure them, as Mistral's: filled as Jinja renders them where all have nine letters."""

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
