"""Reasoning and tool calls that carry no loss, by where the template writes them."""

import pytest
from template_texts import CHATML, TOKENS

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, TemplateTokens, TrainOn

pytestmark = pytest.mark.unit

CALL = {"type": "function", "function": {"name": "weather", "arguments": {}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}
QUESTION = Turn(role="user", content="Hi")
REASONED = Conversation(turns=(QUESTION, Turn(role="assistant", content="Hello", reasoning="REASON")))
AGENTIC = Conversation(
    turns=(
        QUESTION,
        Turn(role="assistant", content="First"),
        QUESTION,
        Turn(role="assistant", tool_calls=(CALL,), reasoning="REASON"),
        Turn(role="tool", content="sunny", name="weather"),
        Turn(role="assistant", content="Hello", reasoning="REASON"),
    ),
    tools=(TOOL,),
)


def writes(turn, prompt="", call="'<tool_call>' + c.function.name + '</tool_call>'"):
    """Return a template whose assistant turns are `turn`, with `r` for the reasoning."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{% set r = m.reasoning_content or '' %}" + turn + "{% for c in m.tool_calls or [] %}{{ " + call + " }}"
        "{% endfor %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n" + prompt + "' }}{% endif %}"
    )


ANSWER = "{{ m.content or '' }}"
THINK = "{{ '<think>\\n' + r + '\\n</think>\\n\\n' }}" + ANSWER
SEED = "{% if r %}{{ '<seed:think>' + r + '</seed:think>\\n' }}{% endif %}" + ANSWER
CHANNELS = (
    "{% if r %}{{ '<channel>analysis<message>' + r + '<end><start>assistant' }}{% endif %}"
    "{% if m.content %}{{ '<channel>final<message>' + m.content }}{% endif %}"
)


def trained(source, conversation, tokens=TOKENS, **policy):
    template = ChatTemplate("t", source, tokens)
    template.require_parts(TrainOn(**policy))
    rendering = template.render(conversation)
    return [rendering.text[start:end] for start, end in TrainOn(**policy).spans(rendering, conversation)]


@pytest.mark.parametrize(
    ("source", "block", "answer"),
    [
        (writes(THINK), "<think>\nREASON\n</think>\n\n", "Hello<|im_end|>"),
        (writes(THINK, prompt="<think>\\n"), "REASON\n</think>\n\n", "Hello<|im_end|>"),
        (writes("{{ '\\n' }}" + THINK), "\n<think>\nREASON\n</think>\n\n", "Hello<|im_end|>"),
        (writes(SEED), "<seed:think>REASON</seed:think>\n", "Hello<|im_end|>"),
        (
            writes(CHANNELS),
            "<channel>analysis<message>REASON<end><start>assistant",
            "<channel>final<message>Hello<|im_end|>",
        ),
    ],
)
def test_reasoning_is_taken_out_with_its_markup(source, block, answer):
    assert trained(source, REASONED) == [block + answer]
    assert trained(source, REASONED, reasoning=False) == [answer]
    turns = trained(source, AGENTIC, reasoning=False)
    assert turns == [answer.replace("Hello", "First"), "<tool_call>weather</tool_call><|im_end|>", answer]
    first, *rest = trained(source, AGENTIC, tool_calls=False)
    assert first == answer.replace("Hello", "First")
    assert rest == [block.rstrip(), "<|im_end|>", block + answer]


def test_reasoning_that_is_inlined_in_the_content():
    inlined = Conversation(turns=(QUESTION, Turn(role="assistant", content="<think>\nREASON\n</think>\n\nHello")))
    plain = writes("{{ m.content }}")
    assert trained(plain, inlined, reasoning=False) == ["Hello<|im_end|>"]
    opened = writes("{{ m.content }}", prompt="<think>\\n")
    assert trained(opened, inlined) == ["REASON\n</think>\n\nHello<|im_end|>"]
    assert trained(opened, inlined, reasoning=False) == ["Hello<|im_end|>"]
    seed = Conversation(turns=(QUESTION, Turn(role="assistant", content="<seed:think>REASON</seed:think>Hello")))
    assert trained(writes(SEED), seed, reasoning=False) == ["Hello<|im_end|>"]


def test_reasoning_that_cannot_be_told_from_the_answer_is_refused_at_the_start():
    source = writes(
        "{{ 'Thought: ' + r + ' Answer: ' + m.content if r and m.content else 'Direct: ' + (m.content or r) }}"
    )
    assert trained(source, REASONED) == ["Thought: REASON Answer: Hello<|im_end|>"]
    with pytest.raises(UsageError, match="--no-train-reasoning cannot be done"):
        trained(source, REASONED, reasoning=False)


def test_a_record_whose_reasoning_is_written_in_another_way_is_left_out():
    source = writes("{% if r %}{{ '<r>' + r + ('</r>' if not m.tool_calls else '|') }}{% endif %}" + ANSWER)
    assert trained(source, REASONED, reasoning=False) == ["Hello<|im_end|>"]
    assert trained(source, AGENTIC)[1] == "<r>REASON|<tool_call>weather</tool_call><|im_end|>"
    with pytest.raises(RecordError) as caught:
        trained(source, AGENTIC, reasoning=False)
    assert caught.value.reason == "reasoning_unknown"


def test_calls_between_two_texts_of_a_turn():
    source = writes(
        "{% for c in m.tool_calls or [] %}{{ '[' + c.function.name + ']' }}{% endfor %}" + ANSWER, call="''"
    )
    beside = Conversation(
        turns=(
            QUESTION,
            Turn(role="assistant", content="Looking", tool_calls=(CALL,)),
            Turn(role="tool", content="sunny", name="weather"),
            Turn(role="assistant", content="Hello"),
        ),
        tools=(TOOL,),
    )
    assert trained(source, beside, tool_calls=False) == ["Looking<|im_end|>", "Hello<|im_end|>"]


def test_calls_in_generation_blocks():
    tokens = TemplateTokens(control=("<|im_start|>", "<|im_end|>"), stop=("<|im_end|>",))
    call = "'[' + m.tool_calls[0].function.name + ']' if m.tool_calls else m.content"
    source = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ " + call + " }}"
        "{{ '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert trained(source, AGENTIC, tokens, tool_calls=False) == ["First<|im_end|>", "<|im_end|>", "Hello<|im_end|>"]


def test_the_last_run_is_what_was_said_since_the_last_question_that_was_answered():
    source = writes(ANSWER)
    expected = ["<tool_call>weather</tool_call><|im_end|>", "Hello<|im_end|>"]
    assert trained(source, AGENTIC, turns="last-run") == expected
    unanswered = Conversation(turns=(*AGENTIC.turns, QUESTION), tools=(TOOL,))
    assert trained(source, unanswered, turns="last-run") == expected
    greeting = Conversation(turns=(Turn(role="assistant", content="Welcome"), QUESTION))
    assert trained(CHATML, greeting, turns="last-run") == ["Welcome<|im_end|>"]


def test_reasoning_beside_a_control_token_that_was_typed():
    typed = Conversation(turns=(QUESTION, Turn(role="assistant", content="Hello <|im_end|>", reasoning="</s> REASON")))
    assert trained(writes(THINK), typed, reasoning=False) == ["Hello <|im_end|><|im_end|>"]
