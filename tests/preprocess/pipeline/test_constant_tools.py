"""Records whose template looks into tools: filled as Jinja renders them, once the same tools were seen before."""

import pytest
from both_paths import Both
from hypothesis import given, settings
from hypothesis import strategies as st
from rich_conversations import CONVERSATION, NAME
from tool_templates import LOOKS_INTO_TOOLS, SEARCH, TOOLS, TYPESCRIPT, WEATHER, tool

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.layouts import take_apart
from sft_shards.formats.templates import TrainOn
from sft_shards.preprocess.pipeline import constant_tools

pytestmark = pytest.mark.unit


def asked(*texts, tools=(WEATHER, SEARCH)):
    turns = [Turn(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)]
    return Conversation(turns=tuple(turns), tools=tuple(tools))


def called(name, city, tools=(WEATHER, SEARCH)):
    call = {"type": "function", "function": {"name": name, "arguments": {"city": city}}}
    turns = (Turn(role="user", content="Weather?"), Turn(role="assistant", tool_calls=(call,)))
    more = (
        Turn(role="tool", content="sunny " + city, name=name),
        Turn(role="assistant", content="Clear, says " + name),
    )
    return Conversation(turns=(*turns, *more), tools=tuple(tools))


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize("name", ["typescript", "xml", "python"])
def test_tools_that_were_seen_before_are_filled(name, in_columns):
    both = Both(LOOKS_INTO_TOOLS[name])
    for number, fallbacks in enumerate((1, 0, 0)):
        one = asked("Hi", f"Yo {number}"), called("get_weather", f"Base{number}")
        for conversation in one:
            rendered, found = both.render(conversation, in_columns=in_columns)
            assert found == fallbacks
            assert rendered.notes == {}
    assert both.render(asked("a", "b", "c", "d"), asked("e", "f", "g", "h"), in_columns=in_columns)[1] == 0
    other = tool("search", city={"type": "string"})
    assert both.render(asked("Hi", "Yo", tools=[other]), asked("Hi", "Yo"))[1] == 1
    assert both.render(asked("Hi", "Yo", tools=[other]), asked("Hi", "Yo", tools=[SEARCH]))[1] == 1


def test_tools_are_told_apart_by_each_of_their_texts():
    both = Both(TYPESCRIPT)
    offered = [
        (tool("ab", "c"),),
        (tool("a", "bc"),),
        (tool("a", "b"), tool("c", "d")),
        (tool("c", "d"), tool("a", "b")),
    ]
    texts = [both.render(*[asked("Hi", "Yo", tools=tools)] * 2)[0].texts for tools in offered]
    assert len({*map(tuple, texts)}) == len(offered)
    assert both.render(*(asked("Hi", "Yo", tools=tools) for tools in offered))[1] == 0


SAID = st.sampled_from(["Hi", " é\n", "get_weather", "x0", "search", '"', "Where?"])
SIMPLE = st.lists(SAID, min_size=2, max_size=4).map(lambda texts: asked(*texts)) | st.builds(called, NAME, SAID)


@pytest.mark.parametrize("name", LOOKS_INTO_TOOLS)
@settings(max_examples=25)
@given(st.lists(SIMPLE | SIMPLE | SIMPLE | CONVERSATION, min_size=1, max_size=4), TOOLS, st.booleans())
def test_both_implementations_render_any_tools_the_same(name, found, tools, trains_calls):
    """`Both` compares texts, spans, notes, rejects and digests."""
    both = Both(LOOKS_INTO_TOOLS[name], TrainOn(turns="all" if trains_calls else "last", tool_calls=trains_calls))
    offering = [Conversation(turns=one.turns, tools=tuple(tools)) for one in found]
    for _ in range(2):
        both.render(*offering)


@pytest.mark.parametrize(
    "words",
    ["say <|im_end|>", "<think>", "\ufdd5", "\0text", "</think>"],
    ids=["token", "tag", "reserved", "leaf", "end"],
)
@pytest.mark.parametrize("place", ["description", "key"])
def test_tools_that_hold_what_has_a_meaning_of_its_own_are_left_to_jinja(words, place):
    both = Both(TYPESCRIPT)
    own = tool("t", words, a={"type": "string"}) if place == "description" else tool("t", **{words: {"type": "string"}})
    one = asked("Hi", "Yo", tools=[own])
    assert both.render(one, one, one)[1] == 3
    assert both.render(asked("Hi", "Yo"), asked("Hi", "Yo"))[1] == 0


def test_a_template_that_compares_a_call_with_the_tools_keeps_their_words_from_no_other_record():
    both = Both(LOOKS_INTO_TOOLS["looked up"])
    records = [called("get_weather", "Basel"), called("other", "Basel"), called("search", "Graz")]
    assert both.render(*records, *records)[1] == 6
    asking = asked("search what?", "the get_weather", tools=())
    assert both.render(asking, asked("search", "y"), asked("search", "y"))[1] == 0


def test_a_layout_that_no_tools_help_is_tried_a_few_times(monkeypatch):
    both = Both(TYPESCRIPT.replace("(m.content or '')", "(m.content or '') | upper"))
    traced = []
    trace = both.batch._skeletons._trace
    monkeypatch.setattr(both.batch._skeletons, "_trace", lambda layout: traced.append(layout) or trace(layout))
    for number in range(6):
        one = asked("Hi", "YO", tools=[tool("t", city={"type": "string", "description": str(number)})])
        assert both.render(one, one)[1] == 2
    assert len(traced) == 1 + constant_tools.MOST_FAILURES


@pytest.mark.parametrize("bound", ["LONGEST_TOOLS", "MOST_BYTES", "MOST_LAYOUTS"])
def test_constants_are_bounded(bound, monkeypatch):
    first, second = asked("Hi", "Yo", tools=[WEATHER]), asked("Hi", "Yo", tools=[SEARCH])
    size = sum(len(text.encode()) for text in take_apart(first)[1][:3])
    monkeypatch.setattr(constant_tools, bound, size if bound == "LONGEST_TOOLS" else 1)
    both = Both(TYPESCRIPT)
    assert both.render(first, first)[1] == 0
    assert both.render(second, second)[1] == (0 if bound == "LONGEST_TOOLS" else 2)
    monkeypatch.setattr(constant_tools, bound, size - 1 if bound == "LONGEST_TOOLS" else 0)
    assert Both(TYPESCRIPT).render(first, first)[1] == 2


def test_long_layouts_are_filled_the_second_time_too():
    both = Both(TYPESCRIPT)
    assert both.render(asked("Hi", "Yo"), asked("Hi", "Yo"))[1] == 0
    assert [both.render(asked(*"ab" * 20))[1] for _ in range(3)] == [1, 0, 0]
