"""Tools that a template ignores are counted of each record as the reference counts them, without Jinja."""

import pytest
from both_paths import Both
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting_templates import TOKENS as REWRITING_TOKENS
from rewriting_templates import block, template
from template_texts import CHATML, TAGGED_TOOLS

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.templates import ChatTemplate, TrainOn

pytestmark = pytest.mark.unit
WRITES_FIRST = "{{ tools[0].function.name if tools else '' }}" + CHATML
REWRITES = ChatTemplate("t", template(block("run and (last or reasoning)"), tools="false"), REWRITING_TOKENS)
REWRITES_TOOLS = ChatTemplate("t", template(block("run and (last or reasoning)")), REWRITING_TOKENS)


def tool(name, **more):
    return {"type": "function", "function": {**more, "name": name}}


def turns(*texts, reasoning=None):
    found = [Turn(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)]
    return [
        Turn(role=one.role, content=one.content, reasoning=reasoning) if one.role == "assistant" else one
        for one in found
    ]


def both(source, found, policy=None):
    """The notes of conversations, in which both implementations agree on everything, and how many Jinja rendered."""
    rendered, fallbacks = Both(source, policy).render(*found)
    return rendered.notes, fallbacks


def test_tools_are_ignored_unless_somebody_says_their_names():
    offered = (tool("weather"), tool("search", description="to search"))
    said = [
        ("Hi", "Yo"),
        ("The weather?", "Yo"),
        ("search", "weather"),
        ("wea", "ther search"),
        ("é weather", "search"),
    ]
    found = [Conversation(turns=tuple(turns(*one)), tools=offered) for one in said]
    found.append(Conversation(turns=tuple(turns("Hi", "Yo"))))
    notes, fallbacks = both(CHATML, found)
    assert notes == dict.fromkeys((3, 4, 6), ("tools_ignored",))
    assert fallbacks == 0


def test_a_tool_without_a_name_is_not_ignored():
    nameless = {"type": "code_interpreter"}
    offered = ((nameless,), (nameless, tool("x")))
    found = [Conversation(turns=tuple(turns("Hi", "Yo")), tools=tools) for tools in offered]
    assert both(CHATML, found) == ({4: ("tools_ignored",)}, 0)


def test_all_names_have_to_be_written():
    found = [
        Conversation(turns=tuple(turns("Hi", "Yo")), tools=tuple(map(tool, names))) for names in ("a", "ab", "aio")
    ]
    notes, fallbacks = both(WRITES_FIRST, found)
    assert notes == {4: ("tools_ignored",)}
    assert fallbacks == 0


def test_the_text_of_one_turn_is_not_taken_for_the_name_of_a_tool():
    """The texts of a skeleton's example are numbered: "x1", the name, begins as "x10" does."""
    found = Conversation(turns=tuple(turns(*"abcdefghijkl")), tools=({"description": "d", "name": "q1"},))
    assert both(CHATML, [found]) == ({3: ("tools_ignored",)}, 0)


@pytest.mark.parametrize(
    ("more", "notes", "fallbacks"),
    [
        ([], {3: ("tools_ignored",)}, 0),
        ([Turn(role="user", content="look_up what?")], {}, 1),  # the whole rendering is not among the texts
        ([Turn(role="user", content="what?")], {3: ("tools_ignored",)}, 1),
    ],
)
def test_unrolled_conversations_are_judged_by_their_whole_rendering(more, notes, fallbacks):
    found = Conversation(turns=(*turns("a", "b", "c", "d", reasoning="r"), *more), tools=(tool("look_up"),))
    assert both(REWRITES, [found], TrainOn(rewritten="unroll")) == (notes, fallbacks)
    assert both(REWRITES_TOOLS, [found], TrainOn(rewritten="unroll")) == ({}, 0)


def test_ignored_tools_are_counted_before_what_else_is_noted():
    found = [
        Conversation(turns=tuple(turns("a", text, "c", "d", reasoning="r")), tools=(tool("look_up"),))
        for text in ("b", "look_up")
    ]
    more = ("reasoning_dropped", "rewritten_turns_without_loss", "history_rewritten")
    assert both(REWRITES, found) == ({3: ("tools_ignored", *more), 4: more}, 0)


WORDS = st.lists(st.sampled_from(["weather", "wea", "search", " ", "é", "<|im_end|>", "x"]), min_size=1, max_size=4)
SAID = WORDS.map("".join).filter(str.strip)
OFFERED = st.lists(st.sampled_from(["weather", "wea", "search", "x", "two words"]).map(tool), max_size=3).map(tuple)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.lists(SAID, min_size=2, max_size=4), OFFERED), min_size=1, max_size=4))
@pytest.mark.parametrize("source", [CHATML, WRITES_FIRST, TAGGED_TOOLS])
def test_both_implementations_count_the_same(source, found):
    """`both` compares them."""
    both(source, [Conversation(turns=tuple(turns(*texts)), tools=tools) for texts, tools in found])


def test_names_of_several_words_are_names():
    call = {"type": "function", "function": {"name": "get the weather", "arguments": {"city": "Basel"}}}
    asked = (Turn(role="user", content="Hi"), Turn(role="assistant", tool_calls=(call,)))
    more = (Turn(role="tool", content="sunny", name="get the weather"), Turn(role="assistant", content="Clear"))
    found = Conversation(turns=(*asked, *more), tools=(tool("get the weather"), tool("search")))
    ignored = Conversation(turns=tuple(turns("get the weather", "Yo")), tools=(tool("get the weather"), tool("x y")))
    assert both(TAGGED_TOOLS, [found, ignored]) == ({}, 0)
    assert both(CHATML, [ignored]) == ({3: ("tools_ignored",)}, 0)
