"""Conversations on which a template is tried when it is loaded: one of every kind that training data has.

Reasoning stands under all its keys, so that templates show it whichever they read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from sft_shards.formats.conversation import Conversation, Turn

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "probe_weather",
        "description": "Looks the weather up.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}},
    },
}
CALL: dict[str, Any] = {
    "id": "probe0001",
    "type": "function",
    "function": {"name": "probe_weather", "arguments": {"city": "Basel"}},
}


@cache
def probes() -> tuple[Conversation, ...]:
    """Return conversations of several turns, with and without a system prompt, reasoning and tools."""
    system = Turn(role="system", content="Keep it short")
    plain = (
        Turn(role="user", content="Hello"),
        Turn(role="assistant", content="Hi there"),
        Turn(role="user", content="How are you"),
        Turn(role="assistant", content="Very well"),
    )
    reasoned = (
        Turn(role="user", content="Two and two"),
        Turn(role="assistant", content="Four", reasoning="Adding them", reasoning_alias=True),
        Turn(role="user", content="And one more"),
        Turn(role="assistant", content="Five", reasoning="One more than before", reasoning_alias=True),
    )
    inlined = (
        Turn(role="user", content="Two and two"),
        Turn(role="assistant", content="<think>\nAdding them\n</think>\n\nFour"),
        Turn(role="user", content="And one more"),
        Turn(role="assistant", content="<think>\nOne more than before\n</think>\n\nFive"),
    )

    def agentic(steps: int = 1, **more: Any) -> tuple[Turn, ...]:
        own: dict[str, Any] = {"reasoning": more.get("reasoning"), "reasoning_alias": "reasoning" in more}
        return (
            Turn(role="user", content="Weather in Basel"),
            *(
                Turn(role="assistant", content=more.get("beside"), tool_calls=(CALL,), **own),
                Turn(role="tool", content="sunny", name="probe_weather", tool_call_id="probe0001"),
            )
            * steps,
            Turn(role="assistant", content="It is clear", **own),
        )

    with_tools = (
        agentic(),
        agentic(beside="Looking it up"),
        agentic(2),
        agentic(reasoning="Let me see"),
        (*agentic(), *plain),
        plain,
        (*agentic(reasoning="Let me see"), *reasoned),
    )
    return (
        *(Conversation(turns=turns) for turns in (plain, (system, *plain), reasoned, inlined[:2], inlined)),
        *(Conversation(turns=turns, tools=(TOOL,)) for turns in with_tools),
        Conversation(turns=(system, *agentic()), tools=(TOOL,)),
    )


@cache
def reasoning_probes(with_tools: bool) -> tuple[tuple[Conversation, Conversation, str], ...]:
    """Return conversations whose first assistant turn reasons, each with the same one without, and the reasoning.

    Args:
        with_tools: whether all of them offer a tool.
    """
    reasoning = "Let me see"
    asked = Turn(role="user", content="Weather in Basel")
    answers = (
        (Turn(role="assistant", content="It is clear"),),
        (
            Turn(role="assistant", tool_calls=(CALL,)),
            Turn(role="tool", content="sunny", name="probe_weather", tool_call_id="probe0001"),
            Turn(role="assistant", content="It is clear"),
        ),
    )

    def conversation(turns: tuple[Turn, ...], tools: bool) -> Conversation:
        return Conversation(turns=(asked, *turns), tools=(TOOL,) if tools else ())

    return tuple(
        (
            conversation(
                (replace(turns[0], reasoning=reasoning, reasoning_alias=True), *turns[1:]), with_tools or len(turns) > 1
            ),
            conversation(turns, with_tools or len(turns) > 1),
            reasoning,
        )
        for turns in answers
    )


@cache
def last_turns() -> tuple[Conversation, ...]:
    """Return conversations that end with an assistant's reasoning: before an answer or a call, beside or inside.

    Calls come without a text beside them and with one, since a template may write no header in front of a bare call.
    """
    asked = Turn(role="user", content="Weather in Basel")
    inside = "<think>\nLet me see\n</think>\n\n"
    beside = (
        replace(turn, reasoning="Let me see", reasoning_alias=alias)
        for turn in (
            Turn(role="assistant", content="It is clear"),
            Turn(role="assistant", tool_calls=(CALL,)),
            Turn(role="assistant", content="Looking it up", tool_calls=(CALL,)),
        )
        for alias in (False, True)
    )
    last = (
        *beside,
        Turn(role="assistant", content=inside + "It is clear"),
        Turn(role="assistant", content=inside, tool_calls=(CALL,)),
        Turn(role="assistant", content=inside + "Looking it up", tool_calls=(CALL,)),
    )
    return tuple(Conversation(turns=(asked, turn), tools=(TOOL,) if turn.tool_calls else ()) for turn in last)


@cache
def late_system() -> Conversation:
    """Return two rounds with a system prompt between them, which templates may move to the front."""
    plain, with_system = probes()[:2]
    return replace(plain, turns=(*plain.turns[:2], with_system.turns[0], *plain.turns[2:]))


@cache
def padded() -> Conversation:
    """Return two rounds with white space around all texts, which templates may strip in some places alone."""
    texts = ("Hello", "Hi there", "How are you", "Very well")
    roles = ("user", "assistant") * 2
    return Conversation(
        turns=tuple(Turn(role=role, content=f"\n {text} \n") for role, text in zip(roles, texts, strict=True))
    )
