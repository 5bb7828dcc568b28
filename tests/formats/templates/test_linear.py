"""No text takes more than linear time: each of these would take many minutes, were it looked at once for each tag."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.records import FieldMap
from sft_shards.formats.records.chatml import ChatML
from sft_shards.formats.templates import Rendering, TrainOn
from sft_shards.formats.templates.omissions import notes_of
from sft_shards.formats.templates.rendering import Spoken, written_calls
from sft_shards.formats.templates.thinking import think_blocks

pytestmark = pytest.mark.unit

MANY = 1_000_000
THINK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
CALL = re.compile(r"\s*<tool_call>.*?</tool_call>", re.DOTALL)
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", " ", "\n", "\x1c", "\u3000", "a", "<"]


@given(st.lists(st.sampled_from(TAGS), max_size=12).map("".join))
def test_blocks_are_the_ones_that_a_pattern_finds(text):
    assert list(think_blocks(text)) == [match.span() for match in THINK.finditer(text)]
    assert list(written_calls(text)) == [match.span() for match in CALL.finditer(text)]


@pytest.mark.parametrize("text", ["<think>" * MANY, "a" + " " * MANY, "<tool_call>" * MANY, " <tool_call>" * MANY])
def test_tags_that_are_never_closed(text):
    conversation = Conversation(turns=(Turn(role="assistant", content=text),))
    spoken = Spoken(turn=0, start=0, end=len(text), stop=len(text) - 1)
    rendering = Rendering(text=text, spoken=(spoken,))
    assert TrainOn(reasoning=False, tool_calls=False).spans(rendering, conversation) == [(0, len(text))]


def test_blanks_before_chatml():
    for text in (" " * MANY, "\n" * MANY + "<a>" + " " * MANY):
        assert not ChatML().matches({"text": text}, FieldMap())
        assert ChatML().matches({"text": text + "<|im_start|>"}, FieldMap())


def test_very_many_tools():
    tools = [{"type": "function", "function": {"name": f"name-{number}"}} for number in range(200_000)]
    text = "".join(f"{tool['function']['name']}\n" for tool in tools)
    assert notes_of(text, tools, []) == ()
    assert notes_of(text, [*tools, {"function": {"name": "other"}}], []) == ("tools_ignored",)
