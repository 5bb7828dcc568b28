"""Messages to text by one compiled template: what it is given, and the forms in which it takes tool calls."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sft_shards.formats.conversation import Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import json_text
from sft_shards.formats.templates.sandbox import compile_template, render
from sft_shards.formats.templates.turn_spans import take_out_blocks

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class MessageRenderer:
    """A compiled Jinja template with the tokens that it may name.

    Args:
        source: the template's text.
        tokens: `bos_token`, `eos_token` and so on.

    Attributes:
        has_generation: whether the template marks what is generated with `{% generation %}`.

    Raises:
        jinja2.TemplateSyntaxError: the template is no Jinja.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self._template = compile_template(source)
        self._tokens = tokens
        self._knows_developer = "developer" in source
        self.has_generation = GENERATION.search(source) is not None

    def render(
        self, messages: list[dict[str, Any]], beside: Mapping[str, Any], add_generation_prompt: bool = False
    ) -> str:
        """Return the rendering of messages, with marks where generation blocks begin and end.

        Args:
            beside: tools, documents and arguments, by name.

        Raises:
            RecordError: `template_error`, the template refuses the messages.
        """
        return render(self._template, **self.variables(messages, beside), add_generation_prompt=add_generation_prompt)

    def prompt(self, messages: list[dict[str, Any]], beside: Mapping[str, Any]) -> str:
        """Return what inference feeds behind messages: their rendering with the generation prompt.

        Raises:
            RecordError: `template_error`, the template refuses the messages; `turn_start_unknown`, there are none, and
                transformers takes no conversation without messages.
        """
        if not messages:
            detail = "the assistant's turn is the first, and the template writes no known header in front of it"
            raise RecordError("turn_start_unknown", f"{detail}; put a user's turn before it")
        return take_out_blocks(self.render(messages, beside, add_generation_prompt=True))[0]

    def text(self, messages: list[dict[str, Any]], beside: Mapping[str, Any]) -> str:
        """Return the rendering of messages, without marks."""
        return take_out_blocks(self.render(messages, beside))[0]

    def variables(self, messages: list[dict[str, Any]], beside: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that a rendering is given, but for whether it asks for the generation prompt.

        Args:
            beside: tools, documents and arguments, by name.
        """
        return {**self._tokens, **beside, "messages": messages}

    def forms(self, turns: Sequence[Turn], to_json: Callable[[Any], str] = json_text) -> Iterator[list[dict[str, Any]]]:
        """Yield the messages of turns in each of the forms in which they are rendered, until the template takes one.

        Args:
            to_json: writes the arguments of a call.
        """
        messages = [turn.message() for turn in turns]
        for message in messages:
            if message["role"] == "developer" and not self._knows_developer:
                message["role"] = "system"
        yield messages
        yield from _call_forms(messages, to_json)

    def render_form(
        self, messages: list[dict[str, Any]], beside: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], str]:
        """Return the messages, with tool calls in the form that the template takes, and their rendering.

        The first form that renders is taken.
        """
        try:
            return messages, self.render(messages, beside)
        except RecordError as error:
            for other in _call_forms(messages):
                with contextlib.suppress(RecordError):
                    return other, self.render(other, beside)
            raise error


def _call_forms(
    messages: list[dict[str, Any]], to_json: Callable[[Any], str] = json_text
) -> Iterator[list[dict[str, Any]]]:
    """Yield messages with their tool calls in other forms, if they have any.

    Templates differ in what they expect: arguments as an object or as a JSON text, no content or "" in a turn that is
    all tool calls. None of them gets null, since transformers leaves such keys out.
    """
    if any(message.get("tool_calls") for message in messages):
        yield [_with_calls_as(message, None, {"content": ""}) for message in messages]
        yield [_with_calls_as(message, to_json, {}) for message in messages]
        yield [_with_calls_as(message, to_json, {"content": ""}) for message in messages]


def _with_calls_as(
    message: dict[str, Any], to_json: Callable[[Any], str] | None, default: dict[str, Any]
) -> dict[str, Any]:
    """Return a message with the arguments of its calls as JSON texts or as they are, and a default where keys miss."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if to_json is not None and not isinstance(arguments, str):
            arguments = to_json(arguments)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**default, **message, "tool_calls": calls}
