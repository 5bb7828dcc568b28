"""Random templates and conversations: a turn that was located begins where its prompt ends, or its prompt is not there.

transformers renders what is compared with. Texts have no control tokens in them, so that every one is the template's.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from transformers.utils.chat_template_utils import render_jinja_template
from turn_grammar import conversations, templates

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import ChatTemplate, TemplateTokens

pytestmark = pytest.mark.unit
BLOCK = re.compile(r"\s*<think>\s*</think>|(?<=<think>)\s*</think>|(?<=<think>\n)\s*</think>")


def rendered(source, messages, tools, prompt=False):
    kept = [{key: value for key, value in message.items() if value is not None} for message in messages]
    [text], _ = render_jinja_template(
        [kept], tools=tools, chat_template=source, add_generation_prompt=prompt, bos_token="<s>"
    )
    return text


@settings(max_examples=25)
@given(templates(), conversations(typed=False))
def test_a_turn_is_what_follows_its_prompt_through_the_first_stop_token(template, record):
    source, stop = template
    for message in record["messages"]:
        message["content"] = message["content"] or ""  # templates that take no null are asked in another form
    tokens = TemplateTokens(
        variables={"bos_token": "<s>"}, control=("<s>", "<|im_start|>", stop, "<|assistant|>", "<|user|>"), stop=(stop,)
    )
    try:
        rendering = ChatTemplate("drawn", source, tokens).render(get("openai").read(record, FieldMap()))
    except (UsageError, RecordError):
        assume(False)
        return
    messages, tools = record["messages"], record.get("tools")
    whole = rendered(source, messages, tools)
    shared = rendering.text.removesuffix(stop).rstrip()  # what nothing ends is ended, what is always written is cut
    assert whole.startswith(shared)
    assert [one.turn for one in rendering.spoken] == [
        at for at, message in enumerate(messages) if message["role"] == "assistant"
    ]
    for one in rendering.spoken:
        said = rendering.text[one.start : one.end]
        assert said.endswith(stop)
        assert said.count(stop) == 1
        prompt = rendered(source, messages[: one.turn], tools, prompt=True) if one.turn else ""
        if prompt and whole.startswith(prompt):
            behind = rendering.text[len(prompt) : one.start]
            assert not behind or BLOCK.match(rendering.text, len(prompt)), f"{behind!r} carries no loss\n{source}"
            assert one.start >= len(prompt), f"{said!r} begins in the header\n{source}"
        own = messages[one.turn]["content"] or ""
        name = re.search(r"(?:answ|call)[0-9s]+e[rd]", own)
        assert name is None or name[0] in said
