"""Prompts are rendered once for turns that stand alike, and turns begin where each one's own prompt would say."""

import pytest
from template_texts import TOKENS

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.templates import ChatTemplate, turn_spans
from sft_shards.formats.templates.message_renderer import MessageRenderer

pytestmark = pytest.mark.unit

THINKING = "A: <think>"
"""The prompt of one question; `A: ` stands in front of answers in history, and the last words of it are said."""


def template(prompt: str = "", history: str = "A: reply: ", question: str = "") -> str:
    """A template whose generation prompt is `THINKING`, unless `prompt` writes another one behind the messages `m`."""
    return (
        "{% macro question(m, ahead) %}" + (question or "{{ 'U: ' }}") + "{{ m.content }}{% endmacro %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '" + history + "' + m.content }}"
        "{% for call in m.tool_calls or [] %}{{ '<' + call.function.name + call.function.arguments | tojson + '>' }}{% endfor %}"
        "{{ '<|im_end|>' }}"
        "{% else %}{{ question(m, messages[loop.index:]) }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{% set m = messages %}" + (prompt or f"{{{{ '{THINKING}' }}}}") + "{% endif %}"
    )


def turns(*roles_and_texts: str) -> Conversation:
    """Turns as "u:text"; "c:text" is the assistant's, with a call, and "cc:text" with two."""
    roles = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}
    pairs = (one.partition(":")[::2] for one in roles_and_texts)
    call = {"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}
    return Conversation(
        turns=tuple(
            Turn(role=roles[role[0]], content=text, tool_calls=(call,) * role.count("c")) for role, text in pairs
        )
    )


def said(source: str, conversation: Conversation) -> list[str]:
    made = ChatTemplate("t", source, TOKENS)
    assert not made.locator.distrusted, "each prompt would be rendered"
    rendering = made.render(conversation)
    return [rendering.text[one.start : one.end] for one in rendering.spoken]


def where(condition: str) -> str:
    """A prompt that is another one where something is so."""
    return f"{{% if {condition} %}}{{{{ 'A: reply: ' }}}}{{% else %}}{{{{ '{THINKING}' }}}}{{% endif %}}"


OLD = "{% if ahead | selectattr('role', 'equalto', 'user') | list %}{{ 'old ' }}{% endif %}{{ 'U: ' }}"
RUN = ("u:one", "c:two", "t:three", "c:four", "t:five", "a:six")
FOUR = turns("u:one", "a:two", "u:three", "a:four", "u:five", "a:six", "u:seven", "a:eight")
CASES = {
    "the first": (
        where("m | length > 2"),
        "",
        "",
        turns("s:Hi", "u:one", "a:two", "s:Go on.", "u:three", "a:four", "u:five", "a:six"),
    ),
    "the last": (
        where("m | length > 2"),
        "",
        OLD,
        FOUR,
    ),
    "a role before": (
        where("m | length > 3 and m[-2].role == 'system'"),
        "",
        "",
        turns("u:one", "a:two", "u:three", "a:four", "s:Go on.", "u:five", "a:six", "u:seven", "a:eight"),
    ),
    "words in front": (
        "{% if '?' in m[-1].content %}{{ 'A: why: ' }}{% else %}{{ 'A: <think>' }}{% endif %}",
        "A: ' + ('why: ' if '?' in messages[loop.index0 - 1].content else 'reply: ') + '",
        "",
        turns("u:one", "a:two", "u:three", "a:four", "u:five?", "a:six", "u:seven", "a:eight"),
    ),
    "a switch": (
        where("'/no_think' in m[-1].content"),
        "",
        "",
        turns("u:one", "a:two", "u:three", "a:four", "u:five /no_think", "a:six", "u:seven", "a:eight"),
    ),
    "reasoning in a text": (
        where("m | length > 3 and '<think>' in m[-2].content"),
        "",
        "",
        turns("u:one", "a:two", "u:three", "a:The tag <think> opens", "u:five", "a:six", "u:seven", "a:eight"),
    ),
    "a field": (
        where("m[-1].name"),
        "",
        "",
        Conversation(turns=(*FOUR.turns[:4], Turn(role="user", content="five", name="Ann"), *FOUR.turns[5:])),
    ),
    "the first step of a run": (where("m[-1].role == 'user' and m | length > 1"), "", "", turns(*RUN, *RUN, *RUN)),
    "calls before": (
        where("m | length > 5 and m[-2].tool_calls | length > 1"),
        "",
        "",
        turns(*RUN, "u:one", "cc:two", "t:three", "a:four", *RUN),
    ),
    "an answer beside a call": (
        where("m | length > 5 and m[-2].content == ''"),
        "",
        "",
        turns(*RUN, "u:one", "c:", "t:three", "a:four", *RUN),
    ),
    "the last run": (
        where("m | length > 2"),
        "",
        OLD,
        turns(*RUN, *RUN, "u:one", "c:two", "t:three", "c:four", "t:five", "c:six", "t:seven", "a:eight"),
    ),
    "a switch in a call": (
        "{% set s = m | map(attribute='tool_calls') | select | list | string %}" + where("'/no_think' in s"),
        "",
        "",
        Conversation(
            turns=(
                *turns(*RUN).turns,
                Turn(role="user", content="one"),
                Turn(
                    role="assistant",
                    content="two",
                    tool_calls=({"type": "function", "function": {"name": "look", "arguments": {"a": "/no_think"}}},),
                ),
                *turns("t:three", "c:four", "t:five", "a:six", *RUN).turns,
            )
        ),
    ),
}
"""Prompts that differ between turns: the prompt, the history, the question, and the conversation."""


@pytest.mark.parametrize("name", CASES)
def test_turns_begin_where_the_prompt_of_each_would_say(name, monkeypatch):
    prompt, history, question, conversation = CASES[name]
    source = template(prompt, history or "A: reply: ", question)
    found = said(source, conversation)
    monkeypatch.setattr(turn_spans, "prompts_asked_once", lambda _text, prompt, *_: prompt)
    assert found == said(source, conversation)
    begins = {"reply" if one.startswith("reply: ") else "words" for one in found}
    assert begins == {"reply", "words"}  # the prompts do differ


@pytest.mark.parametrize("run", [("u:one", "a:two"), ("u:one", "c:two", "t:three", "a:four"), ("c:one", "t:two")])
def test_a_long_conversation_takes_few_prompts(monkeypatch, run):
    made = ChatTemplate("t", template(), TOKENS)
    conversation = turns("s:Be brief.", "u:Go.", *run * 100, "a:Done.")
    asked = []
    prompt = MessageRenderer.prompt
    monkeypatch.setattr(
        MessageRenderer, "prompt", lambda self, messages, beside: asked.append(1) or prompt(self, messages, beside)
    )
    assert len(made.render(conversation).spoken) > 100
    assert len(asked) <= 8
