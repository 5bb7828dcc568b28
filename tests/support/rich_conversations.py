"""Conversations with tools, calls, answers, reasoning, names and weights, for hypothesis."""

from hypothesis import strategies as st

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError

WORDS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_response>",
        "</tool_response>",
        "<|im_end|>",
        "</s>",
        "<tool_call>",
        "é",
        "x0",
        "\n\n",
    ]
)
TEXT = st.lists(WORDS | st.text(st.sampled_from([*'ab \n\t"\\{}', "é", "日"]), max_size=6), max_size=4).map("".join)
THOUGHT = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["<think>\n", "<think>", "", "\n<think>\n\n"]),
    st.sampled_from(["Let me see", "", "a\n\nb", " é "]),
    st.sampled_from(["\n</think>\n\n", "</think>", "\n\n</think>\n"]),
    TEXT,
    st.sampled_from(["", "\n"]),
)
NAME = st.sampled_from(["get_weather", "search", "x0", "a.b", "two words", "naïve"])
LEAF = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=4
)
OBJECT = st.dictionaries(st.sampled_from(["city", "unit", "é", 'say "so"', "a b"]), VALUE, max_size=3)


def _call(name, arguments, number):
    out = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return out if number is None else {**out, "id": f"call{number}"}


CALL = st.builds(_call, NAME, OBJECT | OBJECT | OBJECT | TEXT | VALUE, st.none() | st.integers(0, 3))
CALLS = st.lists(CALL, max_size=2).map(tuple)
TOOL = st.builds(
    lambda name, more, wrapped: (
        {"type": "function", "function": {"name": name, **more}} if wrapped else {"name": name, **more}
    ),
    NAME,
    st.dictionaries(
        st.sampled_from(["description", "parameters", "strict"]), OBJECT | TEXT | st.booleans(), max_size=3
    ),
    st.sampled_from([True, True, True, False]),
)
OPTIONAL = st.none() | TEXT
ANSWER = st.builds(
    Turn,
    role=st.just("assistant"),
    content=st.none() | TEXT | TEXT | THOUGHT,
    reasoning=st.none() | st.none() | TEXT,
    tool_calls=st.just(()) | CALLS,
    weight=st.sampled_from([1, 1, 1, 0]),
)
RESULT = st.builds(Turn, role=st.just("tool"), content=TEXT, name=st.none() | NAME, tool_call_id=st.none() | NAME)
QUESTION = st.builds(Turn, role=st.just("user"), content=TEXT, context=st.none() | st.none() | st.none() | TEXT)


def _conversation(system, rounds, tools):
    turns = [Turn(role="system", content=system)] if system is not None else []
    for question, answer, results, after in rounds:
        turns += [question, answer]
        if results:
            turns += [*results, after]
    try:
        return Conversation(turns=tuple(turns), tools=tuple(tools))
    except RecordError:
        return None


ROUND = st.tuples(QUESTION, ANSWER, st.lists(RESULT, max_size=2), ANSWER)
CONVERSATION = st.builds(
    _conversation, OPTIONAL, st.lists(ROUND, min_size=1, max_size=2), st.lists(TOOL, max_size=2)
).filter(lambda found: found is not None)
"""Any conversation; about half of them are such that a published template takes them."""
