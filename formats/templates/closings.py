"""Closings: the stop token of a conversation's last turn, where the template leaves it to the message that follows.

GLM's models stop on the next message's first token, `<|user|>` behind an answer and `<|observation|>` behind a call.
Other templates close every turn but the last. A model has to learn to end its last turn too, so what stands behind the
same turn in a longer conversation is put behind it: the ids are those that inference generates.

    <|user|>\\nHi<|assistant|>\\nHello<|user|>\\nMore<|assistant|>\\nSure        <|user|>
                                     └ closes the first answer ┘       └ is added ┘
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.probes import CALL

ASKED = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi there"}
CALLED = {"role": "assistant", "tool_calls": [CALL]}  # with the city of Basel
RESULT = {"role": "tool", "content": "sunny", "name": "probe_weather", "tool_call_id": "probe0001"}
MORE = (ASKED, {"role": "assistant", "content": "More"})
Render = Callable[[list[dict[str, Any]]], str]


@dataclass(frozen=True, kw_only=True)
class Closings:
    """What is put behind a last turn that the template leaves open; "" where it closes them itself."""

    answer: str = ""
    """Behind an answer."""
    calls: str = ""
    """Behind a turn with tool calls."""

    def of(self, messages: list[dict[str, Any]]) -> str:
        """Return what is put behind the rendering of messages."""
        last = messages[-1] if messages else ASKED
        if last["role"] != "assistant":
            return ""
        return self.calls if last.get("tool_calls") else self.answer


def learn_closings(render: Render, stop: re.Pattern[str]) -> Closings:
    """Return what a template needs behind last turns, by what it writes between two messages.

    Args:
        render: renders messages; raises a `RecordError` where the template refuses them.
        stop: matches the tokens that end a turn.
    """
    words = ("Basel", "probe_weather")  # some templates write no arguments, some write the name again with the result
    calls = (_closing(*what_follows(render, (ASKED, CALLED), (RESULT, ANSWER), word), stop) for word in words)
    return Closings(
        answer=_closing(*what_follows(render), stop),
        calls=next(filter(None, calls), ""),
    )


def writes_arguments(render: Render) -> bool:
    """Return whether a template writes the arguments of a call; True where it refuses to write one."""
    try:
        return CALL["function"]["arguments"]["city"] in render([ASKED, CALLED, RESULT, ANSWER])
    except RecordError:
        return True


def what_follows(
    render: Render,
    messages: Sequence[dict[str, Any]] = (ASKED, ANSWER),
    more: Sequence[dict[str, Any]] = MORE,
    word: str = "Hi there",
) -> tuple[str, str]:
    """Return what a template writes behind the last `word` of messages, and what it adds there when more follow.

    The second is "" where that is not known: the template writes something else in place of the first.
    """
    try:
        alone, followed = render([*messages]).rpartition(word)[2], render([*messages, *more]).rpartition(word)[2]
    except RecordError:
        return "", ""
    return alone, followed[len(alone) :] if followed.startswith(alone) else ""


def _closing(alone: str, added: str, stop: re.Pattern[str]) -> str:
    """Return what ends a turn when more follow; "" if it has an end of its own."""
    found = stop.match(added, len(added) - len(added.lstrip()))
    return added[: found.end()] if found and not stop.search(alone) else ""
