"""What inference feeds and generates, by transformers and tokenizers alone; nothing of the pipeline is imported.

Turn k is trained on what follows `render(messages[:k], add_generation_prompt=True)`, up to and with the first stop
token. Where that prompt is no prefix of the whole rendering the template rewrites history, and the turn may carry no
loss, or loss inside of itself that ends with a stop token.

The oracle assumes a byte-level tokenizer whose control tokens strip no white space: then the text between two control
tokens is encoded by itself, and typed control tokens are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerFast

TODAY = datetime(2024, 7, 26)
WORD = re.compile(r"[A-Za-z]{4,}")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One conversation as inference sees it; token positions align with `ids`.

    Attributes:
        text: the rendering, typed control tokens revealed.
        ids: the token ids of `text`.
        must: positions that carry loss.
        may: positions that can carry loss besides, in turns that the template rewrites.
        rewritten: indexes of messages whose generation prompt is no prefix of the rendering.
        unclosed: indexes of messages that no stop token ends.
        lost: indexes of messages that the rendering does not contain.
    """

    text: str
    ids: list[int]
    must: frozenset[int]
    may: frozenset[int]
    rewritten: tuple[int, ...]
    unclosed: tuple[int, ...]
    lost: tuple[int, ...]


class Oracle:
    """Judges sequences of one tokenizer folder.

    Args:
        folder: a Hugging Face tokenizer with a chat template.
        stops: the tokens that end a turn.
    """

    def __init__(self, folder: str, stops: tuple[str, ...]) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.bare = PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
        self.bare.encode_special_tokens = True
        added = self.tokenizer.added_tokens_decoder.values()
        special = sorted((one.content for one in added if one.special), key=len, reverse=True)
        self.stand_ins = {token: f"qzx{number}xzq" for number, token in enumerate(special)}
        self.special = re.compile("|".join(map(re.escape, special)))
        self.reveal = re.compile("|".join(map(re.escape, self.stand_ins.values())))
        self.typed = {name: token for token, name in self.stand_ins.items()}
        self.stop = re.compile("|".join(map(re.escape, stops)))

    def hide(self, value: Any) -> Any:
        """Return a value with every typed control token, in keys too, replaced by a word."""
        if isinstance(value, str):
            return self.special.sub(lambda found: self.stand_ins[found[0]], value)
        if isinstance(value, list):
            return [self.hide(one) for one in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide(one) for key, one in value.items()}
        return value

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a message without null values, as transformers 5.24 renders it, its text parts joined."""
        out = {key: one for key, one in self.hide(message).items() if one is not None}
        if isinstance(out.get("content"), list):
            out["content"] = "".join(part["text"] for part in out["content"])
        return out

    def render(self, messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
        """Return transformers' own rendering."""
        text: str = self.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=prompt, strftime_now=TODAY.strftime
        )
        return text

    def expect(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> Expected:
        """Return what a conversation has to become.

        Raises:
            Exception: what the template raises for the whole conversation.
        """
        messages, tools = [self.prepare(one) for one in messages], self.hide(tools)
        whole = self.render(messages, tools, False)
        must: list[tuple[int, int]] = []
        may: list[tuple[int, int]] = []
        rewritten, unclosed = [], []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self._rendered(messages[:number], tools, True)
            through = self._rendered(messages[: number + 1], tools, False)
            limit = common(whole, through) if through is not None else len(whole)
            exact = prompt is not None and whole.startswith(prompt)
            start = len(prompt) if exact and prompt is not None else common(whole, prompt or "")
            found = self.stop.search(whole, start)
            closed = found is not None and found.start() <= max(limit, start)
            if not exact:
                rewritten.append(number)
            if not closed:
                unclosed.append(number)
            end = found.end() if closed and found is not None else max(limit, start)
            (must if exact and closed else may).append((start, end))
        lost = [at for at, message in enumerate(messages) if not self._is_in(message, whole)]
        ids, spans, text = self._encode(whole)
        return Expected(
            text=text,
            ids=ids,
            must=_overlapping(spans, must),
            may=_overlapping(spans, may),
            rewritten=tuple(rewritten),
            unclosed=tuple(unclosed),
            lost=tuple(lost),
        )

    def _rendered(self, messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str | None:
        try:
            return self.render(messages, tools, prompt)
        except Exception:  # a template refuses a part of a conversation in any way that it likes
            return None

    def _is_in(self, message: dict[str, Any], whole: str) -> bool:
        """Say whether a message's longest words and the names it calls stand in a rendering."""
        content = message.get("content")
        words = WORD.findall(content) if isinstance(content, str) and "</think>" not in content else []
        names = [call["function"]["name"] for call in message.get("tool_calls") or []]
        return all(word in whole for word in [*sorted(words, key=len)[-1:], *names])

    def _encode(self, whole: str) -> tuple[list[int], list[tuple[int, int]], str]:
        """Return ids, their spans in `whole` (stand-ins and all), and the text with stand-ins revealed."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        text = ""
        at = 0
        for control in [*self.special.finditer(whole), None]:
            segment = whole[at : control.start()] if control else whole[at:]
            shown, places = "", [at]  # places[i]: where character i of `shown` stands in `whole`
            read = 0
            for name in [*self.reveal.finditer(segment), None]:
                kept = segment[read : name.start()] if name else segment[read:]
                shown += kept
                places += [at + read + one + 1 for one in range(len(kept))]
                if name:
                    token = self.typed[name[0]]
                    shown += token
                    places += [at + name.end()] * len(token)
                    read = name.end()
            encoded = self.bare.encode(shown, add_special_tokens=False)
            ids += encoded.ids
            spans += [(places[a], places[b]) for a, b in encoded.offsets]
            text += shown
            if control:
                ids.append(self.tokenizer.convert_tokens_to_ids(control[0]))
                spans.append((control.start(), control.end()))
                text += control[0]
                at = control.end()
        return ids, spans, text


def common(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def _overlapping(spans: list[tuple[int, int]], ranges: list[tuple[int, int]]) -> frozenset[int]:
    return frozenset(at for at, (a, b) in enumerate(spans) for start, end in ranges if a < end and b > start)


def judge(expected: Expected, ids: list[int], loss_mask: list[int]) -> str:
    """Return "exact", or what is wrong with a sequence that was accepted."""
    if ids != expected.ids:
        return "ids differ"
    if expected.lost:
        return "a message is lost"
    trained = {at for at, one in enumerate(loss_mask) if one}
    if expected.must - trained:
        return "loss is missing"
    if trained - expected.must - expected.may:
        return "loss where none belongs"
    return "exact"
