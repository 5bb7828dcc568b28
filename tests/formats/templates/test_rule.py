"""The rule: what inference generates behind what it is fed, asked of located turns."""

import re

import pytest
from template_texts import ALWAYS_HEADER, CHATML, LLAMA2, STOPS, THINKS, TOKENS
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import ChatTemplate, Spoken
from sft_shards.formats.templates.rule import require_one_stop, require_rule, rule_span

pytestmark = pytest.mark.unit

STOP = re.compile("|".join(map(re.escape, STOPS)))
TALK = Conversation(
    turns=(
        Turn(role="user", content="Hi"),
        Turn(role="assistant", content="Hello"),
        Turn(role="user", content="More"),
        Turn(role="assistant", content="Sure"),
    )
)


def test_a_turn_begins_where_the_prompt_ends_and_ends_with_its_first_stop_token():
    assert rule_span("Q: hi A: yes</s>Q: x A: no</s>", "Q: hi A:", STOP) == (8, 16)
    assert rule_span("Q: hi A: yes", "Q: hi A:", STOP) is None
    assert rule_span("Q: hi A: yes</s>", "Q: ho A:", STOP) is None, "a rewritten history has no rule"
    assert rule_span("A:<think>\n\n</think>\n\nyes</s>", "A:", STOP) == (21, 28)


@pytest.mark.parametrize("source", [CHATML, LLAMA2, ALWAYS_HEADER, THINKS])
def test_what_is_fed_is_what_transformers_renders(source):
    template = ChatTemplate("t", source, TOKENS)
    assert not template.locator.distrusted
    for number in (1, 3):
        fed, _ = render_jinja_template(
            [TALK.messages()[:number]], chat_template=source, add_generation_prompt=True, **TOKENS.variables
        )
        assert template.prompt(TALK, number) == fed[0]


def test_a_turn_that_is_elsewhere_is_named_with_both_spans():
    located = [Spoken(turn=1, start=9, end=16, stop=12)]
    with pytest.raises(RecordError) as caught:
        require_rule("Q: hi A: yes</s>", located, lambda _: "Q: hi A:", STOP)
    assert caught.value.reason == "turn_differs"
    assert "[9, 16) 'yes</s>'" in caught.value.detail
    assert "[8, 16) ' yes</s>'" in caught.value.detail


def test_a_turn_that_goes_on_behind_a_stop_token_is_left_out() -> None:
    text = "Q: A: so. A: and.Q:"
    require_one_stop(text, (Spoken(turn=1, start=5, end=9, stop=8),), re.compile(r"\."))
    with pytest.raises(RecordError, match=r"turn 1 goes on behind '\.', where inference ends") as error:
        require_one_stop(text, (Spoken(turn=1, start=5, end=17, stop=16),), re.compile(r"\."))
    assert error.value.reason == "turn_differs"


def test_blocks_that_hold_a_header_are_not_believed_where_markers_fail() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{% if loop.previtem.role != 'tool' %}<|im_start|>assistant\n{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{{ m.content or '' }}<|im_end|>"
        "{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": {}}}
    asked = (Turn(role="user", content="Hi"), Turn(role="assistant", tool_calls=(call,)))
    answered = (Turn(role="tool", content="clear", tool_call_id="a"), Turn(role="assistant", content="Hello"))
    with pytest.raises(RecordError) as error:
        ChatTemplate("t", source, TOKENS).render(Conversation(turns=(*asked, *answered)))
    assert error.value.reason == "turn_differs"
