"""Renders a conversation as transformers does, with the control tokens that somebody typed replaced by words.

A typed `<|im_end|>` is text. It is replaced by a word that no tokenizer knows before the template sees it, so that
every control token of the rendering is the template's own, and put back where the rendering is encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

TODAY = datetime(2024, 7, 26)
"""The day on which a job renders."""
TAG = re.compile(r"</?(?:\w+:)?(?:think|tool_call|tool_response|arg_key|arg_value)>")
"""Added tokens that an assistant writes itself; in anybody else's text they are text."""
SPOKEN = ("content", "reasoning_content", "reasoning", "thinking")
Message = dict[str, Any]


class Renderer:
    """Renders with the chat template of one tokenizer.

    Attributes:
        control: matches every added token.
        stand_ins: the word that stands for each added token where it is text.
        bracketed: the same with the token's first and last characters, which some templates look at.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        added = sorted((one.content for one in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self.control = either(added)
        self.stand_ins = {token: f"qzx{number}xzq" for number, token in enumerate(added)}
        self.bracketed = {token: f"{token[0]}qzy{number}yzq{token[-1]}" for number, token in enumerate(added)}
        self.structural = either([token for token in added if not TAG.fullmatch(token)])
        templates = tokenizer.chat_template
        sources = list(templates.values()) if isinstance(templates, dict) else [templates]
        for source in sources:
            chat_template_utils._compile_jinja_template(source).globals["strftime_now"] = TODAY.strftime

    def render(self, messages: list[Message], tools: Any, prompt: bool = False) -> str:
        """Return transformers' own rendering, whatever it raises."""
        if not messages:
            return self._without_messages(tools, prompt)
        text: str = self.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=prompt
        )
        return text

    def _without_messages(self, tools: Any, prompt: bool) -> str:
        """Return what a template writes before the first message: transformers looks into that before it renders."""
        compiled = chat_template_utils._compile_jinja_template(self.tokenizer.get_chat_template(tools=tools))
        tokens = self.tokenizer.special_tokens_map
        text: str = compiled.render(messages=[], tools=tools, documents=None, add_generation_prompt=prompt, **tokens)
        return text

    def rendered(self, messages: list[Message], tools: Any, prompt: bool = False) -> str | None:
        """Return transformers' own rendering; None where the template refuses a part of a conversation.

        Tags that somebody typed for the template to see are replaced behind it.
        """
        try:
            return self._replaced(self.render(messages, tools, prompt), messages)
        except Exception:  # a template refuses in any way that it likes
            return None

    def _replaced(self, text: str, messages: list[Message]) -> str:
        """Return a rendering with the tags replaced in what others than the assistant say, one text after the other."""
        at = 0
        for message in messages:
            said = str(message.get("content") or "").strip()
            hidden = self.hide(said, self.stand_ins)
            found = text.find(said, at) if message["role"] != "assistant" and said != hidden else -1
            if found >= 0:
                text = text[:found] + hidden + text[found + len(said) :]
                at = found + len(hidden)
        return text

    def generated(self, messages: list[Message], tools: Any) -> list[tuple[int, int]]:
        """Return the spans of a rendering that the template marks as generated, as transformers gives them."""
        tokens = self.tokenizer.special_tokens_map
        template = self.tokenizer.get_chat_template(tools=tools)
        if "endgeneration" not in template:
            return []
        _, found = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, return_assistant_tokens_mask=True, **tokens
        )
        spans: list[tuple[int, int]] = found[0]
        return spans

    def hidings(self, messages: list[Message], plain: str) -> Iterator[dict[str, str]]:
        """Yield what stands for each token, the one that a template most likely does not notice first.

        Tokens that the rendering `plain` does not have are left for the template to see. Then all others wear their
        first and last characters, and at last tags are left as they are.
        """
        seen = {token: token for token in self.absent(messages, plain)}
        yield self.stand_ins
        yield {**self.stand_ins, **seen}
        yield {**self.bracketed, **seen}
        yield {**self.bracketed, **seen, **{token: token for token in self.stand_ins if TAG.fullmatch(token)}}

    def hide(self, value: Any, names: Mapping[str, str], tags: bool = True) -> Any:
        """Return a value with typed control tokens, in keys too, replaced; and tags, where they are text."""
        if isinstance(value, str):
            pattern = self.control if tags else self.structural
            return pattern.sub(lambda found: names[found[0]], value)
        if isinstance(value, list):
            return [self.hide(one, names, tags) for one in value]
        if isinstance(value, dict):
            return {self.hide(key, names, tags): self.hide(one, names, tags) for key, one in value.items()}
        return value

    def hide_messages(self, messages: list[Message], names: Mapping[str, str]) -> list[Message]:
        """Return messages with typed control tokens replaced, and tags but in what an assistant says and thinks."""
        out = []
        for message in messages:
            spoken = SPOKEN if message["role"] == "assistant" else ()
            out.append({key: self.hide(value, names, key not in spoken) for key, value in message.items()})
        return out

    def absent(self, messages: list[Message], text: str) -> frozenset[str]:
        """Return the typed control tokens that a rendering does not have, such as a tag that the template takes out."""
        typed = self.control.findall(json.dumps(messages, ensure_ascii=False))
        return frozenset(token for token in typed if token not in text)

    def prepare(self, messages: list[Message], tools: Any) -> list[Message]:
        """Return messages as docs/formats.md says that they are read: parts joined, arguments of calls parsed."""
        knows_developer = "developer" in self.tokenizer.get_chat_template(tools=tools)
        out = []
        for message in messages:
            message = dict(message)
            if isinstance(message.get("content"), list):
                message["content"] = "".join(part["text"] for part in message["content"])
            calls = message.pop("tool_calls", None)
            if calls:
                message["tool_calls"] = [_parsed(call) for call in calls]
            if message["role"] == "developer" and not knows_developer:
                message["role"] = "system"
            out.append(message)
        return out

    def forms(self, messages: list[Message]) -> Iterator[list[Message]]:
        """Yield messages as they are, then in the other forms that templates take calls in."""
        yield messages
        if any(message.get("tool_calls") for message in messages):
            for as_text in (False, True):
                for empty in (None, ""):
                    yield [_with_calls(message, as_text, empty) for message in messages]


def either(words: list[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of several words, and nothing if there are none."""
    return re.compile("|".join(map(re.escape, words)) if words else r"(?!)")


def _parsed(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return call
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _with_calls(message: Message, as_text: bool, empty: str | None) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if as_text and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls, "content": message.get("content") or empty}
