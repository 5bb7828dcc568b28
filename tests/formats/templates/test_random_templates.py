"""Random templates and conversations: what is accepted is what inference feeds and generates, or it is refused.

The oracle is transformers' own rendering: turn k begins where `messages[:k]` with the generation prompt ends, behind an
empty think block, and ends with the first stop token. Where that prompt is no prefix the template rewrites history, and
the turn must still be the answer's own words, closed by a stop token. Nothing that was said is missing.
"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_texts import TOKENS
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, TrainOn
from sft_shards.preprocess.pipeline.batch import ConversationBatch
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering

pytestmark = pytest.mark.unit

STOP = "<|im_end|>"
EMPTY = r"(?:\s*(?:<think>)?\s*</think>\n{0,2})*"
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}


@st.composite
def templates(draw):
    """Return a template: how it trims, opens, thinks, calls, closes and marks."""

    def one(*choices):
        return draw(st.sampled_from(choices))

    content = one("c", "c", "c | trim", "c.lstrip('\\n')", "c.split('</think>')[-1].lstrip('\\n')")
    opener = one("", "", "<think>\\n", "<think>\\n\\n</think>\\n\\n", "<judge>")
    block = "'<think>\\n' + r + '\\n</think>\\n\\n'"
    thinks = one(
        "",
        "{% if r %}{{ " + block + " }}{% endif %}",
        "{% if r and loop.last %}{{ " + block + " }}{% endif %}",
        "{% if r or loop.last %}{{ " + block + " }}{% endif %}",
        "{{ '<think>' + r + '</think>' }}",
        "{{ 'Thought: ' + r + '.' if r else '' }}",
    )
    calls = one(
        "{% for k in m.tool_calls or [] %}{{ '\\n<call>' + k.function.name + '</call>' }}{% endfor %}",
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}",
        "",
    )
    end = "'" + STOP + "'"
    close = one(end, end, f"('' if loop.last else {end})", f"('' if loop.last else {end}) + '\\n'")
    begin, finish = one(("", ""), ("", ""), ("{% generation %}", "{% endgeneration %}"))
    head = one("", "{% if loop.first and m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}")
    users = one("{{ c }}", "{{ c }}", "{{ c | trim }}", "{{ c if m.role != 'system' or loop.first else '' }}")
    header = "{{ '<|im_start|>assistant\\n' }}"
    inside, outside = one((header, ""), ("", header))
    prompt = "{{ '<|im_start|>assistant\\n" + opener + "' }}"
    asked = one("{% if add_generation_prompt %}" + prompt + "{% endif %}", prompt, "")
    return (
        "{% for m in messages %}{% set c = m.content or '' %}{% set r = m.reasoning_content or '' %}"
        + head
        + "{% if m.role == 'assistant' %}"
        + (outside + begin + inside if begin else header)
        + thinks
        + "{{ "
        + content
        + " }}"
        + calls
        + "{{ "
        + close
        + " }}"
        + finish
        + "{% else %}{{ '<|im_start|>' + m.role + '\\n' }}"
        + users
        + "{{ '"
        + STOP
        + "' }}{% endif %}{{ '\\n' }}{% endfor %}"
        + asked
    )


WORDS = st.lists(st.sampled_from([*"ab \n.", "\n\n", "é", "<think>x</think>", "<think>\n</think>"]), max_size=4)


@st.composite
def conversations(draw):
    """Return turns of which each text has a word of its own."""
    turns = []
    if draw(st.booleans()):
        turns.append(Turn(role="system", content="S" + "".join(draw(WORDS))))
    for number in range(draw(st.integers(1, 3))):
        turns.append(Turn(role="user", content="".join(draw(WORDS)) + f"U{number}" + "".join(draw(WORDS))))
        reasoning = draw(st.sampled_from([None, None, f"R{number}", f"\nR{number} \n"]))
        if draw(st.integers(0, 3)) == 0:
            call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
            said = draw(st.sampled_from([None, f"B{number}"]))
            turns.append(Turn(role="assistant", content=said, tool_calls=(call,), reasoning=reasoning))
            turns.append(Turn(role="tool", content=f"T{number}", name="weather"))
        turns.append(Turn(role="assistant", content="".join(draw(WORDS)) + f"A{number}", reasoning=reasoning))
    called = any(turn.tool_calls for turn in turns)
    return Conversation(turns=tuple(turns), tools=(TOOL,) if called else ())


def rendered(source, messages, tools, **more):
    text, _ = render_jinja_template([messages], tools=tools, chat_template=source, **TOKENS.variables, **more)
    return text[0]


@settings(max_examples=60)
@given(templates(), st.lists(conversations(), min_size=1, max_size=3))
def test_what_is_accepted_is_what_inference_generates(source, talks):
    try:
        template = ChatTemplate("t", source, TOKENS)
    except UsageError:
        return
    for talk in talks:
        try:
            rendering = template.render(talk)
        except RecordError:
            continue
        require_right(source, talk, rendering)


def require_right(source, talk, rendering):
    messages, tools = talk.messages(), list(talk.tools) or None
    text, whole = rendering.text, rendered(source, messages, tools)
    assert text in (whole, whole + STOP) or whole.startswith(text), "the text is transformers'"
    assert STOP in text[rendering.spoken[-1].start :]
    for number, turn in enumerate(talk.turns):
        words = re.findall(r"[SUBAT]\d?", (turn.content or "").split("</think>")[-1])
        assert all(word in text for word in words), f"turn {number} is not in the text"
    assert [one.turn for one in rendering.spoken] == [
        n for n, turn in enumerate(talk.turns) if turn.role == "assistant"
    ]
    for one in rendering.spoken:
        said = text[one.start : one.end]
        assert said.endswith(STOP)
        assert STOP not in said[: -len(STOP)]
        assert not re.match(r"\s*<think>\s*</think>", said), "an empty think block carries no loss"
        turn = talk.turns[one.turn]
        own = re.findall(r"[BA]\d", (turn.content or ""))
        assert all(word in said for word in own[-1:])
        others = [other.content or "" for at, other in enumerate(talk.turns) if at != one.turn]
        assert not any(word in said for other in others for word in re.findall(r"[SUBAT]\d", other))
        try:
            prompt = rendered(source, messages[: one.turn], tools, add_generation_prompt=True)
        except Exception:  # the template takes no conversation that ends here
            continue
        blocks_decide = "{% generation" in source and prompt == rendered(source, messages[: one.turn], tools)
        if text.startswith(prompt) and not blocks_decide:
            assert len(prompt) <= one.start
            assert re.fullmatch(EMPTY, text[len(prompt) : one.start])


@settings(max_examples=40)
@given(templates(), conversations())
def test_both_paths_give_the_same(source, talk):
    try:
        template = ChatTemplate("t", source, TOKENS)
    except UsageError:
        return
    found = talk.text_only()
    reference = ReferenceRendering(template, TrainOn(), with_digests=False)
    batch = BatchRendering(template, TrainOn(), reference, with_digests=False)
    conversations = ConversationBatch(
        first_record=0,
        columns=ConversationColumns.from_rows({0: found} if found else {}),
        others={} if found else {0: talk},
    )
    one, other = batch.render(conversations), reference.render(conversations)
    assert one.texts == other.texts
    assert one.spans.tolist() == other.spans.tolist()
    assert [each.reason for each in one.rejects] == [each.reason for each in other.rejects]
