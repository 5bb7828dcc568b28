"""What inference feeds and generates, by transformers and tokenizers alone; nothing of the pipeline is imported.

Turn k is trained on what follows `apply_chat_template(messages[:k], tools, add_generation_prompt=True)`, up to and with
the first stop token. Where that prompt is no prefix of the whole rendering, the template rewrites history: the turn
begins behind its header. Where the template writes no prompt at all, its `{% generation %}` blocks say where a turn
begins. A turn whose reasoning is left out of the whole, but not where the conversation ends with it, carries no loss
(`--rewritten-turns auto`). An empty think block never does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.templates.encoding import Encoder, Span, load
from benchmarks.templates.headers import QUESTION, Headers
from benchmarks.templates.regions import OTHER_WORD, REASONING, Message, Variant, difference, variants
from benchmarks.templates.rendering import Renderer, either

EMPTY_THINK = re.compile(r"\s*<think>\s*</think>")
REST_OF_EMPTY_THINK = re.compile(r"\s*</think>")
"""What is left of one whose first half the header has, or had before history was rewritten."""
OPENED_THINK = re.compile(r"<think>\s*\Z")
NO_HEADER = "a rewritten turn has no header"
Places = list[tuple[Variant, Span | None]]
"""What a message says, and where each part of it stands in a rendering."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One assistant turn of a rendering, in characters.

    Attributes:
        must: what carries loss; None where the rule cannot be asked.
        may: what can carry loss besides.
        silent: a span that carries no loss, since inference would have generated reasoning before it.
        unclosed: whether no stop token ends it.
    """

    must: Span | None
    may: Span = (0, 0)
    silent: bool = False
    unclosed: bool = False


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One conversation as inference sees it; token positions align with `ids`.

    Attributes:
        text: the rendering, typed control tokens revealed.
        ids: the token ids of `text`.
        must: positions that carry loss.
        may: positions that can carry loss besides.
        endings: token ids one row of which, with loss, has to follow where nothing ends the last turn.
        lost: what the rendering does not contain.
        unjudged: why the rule cannot be asked, "" if it can.
        obstacle: why no mask of this rendering can be right, so that it has to be refused; "" if one can.
    """

    text: str
    ids: list[int]
    must: frozenset[int]
    may: frozenset[int]
    endings: frozenset[tuple[int, ...]]
    lost: tuple[str, ...]
    unjudged: str = ""
    obstacle: str = ""


class Oracle:
    """Judges sequences of one tokenizer folder.

    Args:
        folder: a Hugging Face tokenizer with a chat template.
        stops: the tokens that end a turn.
    """

    def __init__(self, folder: Path, stops: tuple[str, ...]) -> None:
        self.tokenizer = load(folder)
        self.renderer = Renderer(self.tokenizer)
        self.encoder = Encoder(folder, self.renderer.control, self.renderer.stand_ins, self.renderer.bracketed)
        self.stop = either(list(stops))
        self.stops = stops
        self.headers = Headers(self.renderer, self.stop)

    def expect(self, messages: list[Message], tools: list[Any] | None) -> list[Expected]:
        """Return what a conversation has to become.

        It is more than one if the template takes calls in another form only, or if a token spans the border between the
        rendering and what ends it.

        Raises:
            Exception: what the template raises for the whole conversation.
        """
        prepared = self.renderer.prepare(messages, tools)
        failure: Exception | None = None
        out = []
        for form in self.renderer.forms(prepared):
            try:
                plain = self.renderer.render(form, tools)
            except Exception as error:  # whatever a template raises
                failure = failure or error
                continue
            out += self._expect(form, tools, plain)
            if failure is None:
                break
        if not out and failure:
            raise failure
        return out

    def _expect(self, messages: list[Message], tools: list[Any] | None, plain: str) -> Iterator[Expected]:
        for names in self.renderer.hidings(messages, plain):
            hidden, shown = self.renderer.hide_messages(messages, names), self.renderer.hide(tools, names)
            whole = self.renderer.rendered(hidden, shown)
            if whole is not None and self.encoder.reveal(whole) == plain:
                break
        tools = shown
        nothing = frozenset[int]()
        if whole is None or self.encoder.reveal(whole) != plain:
            why = "a typed control token changes the rendering"
            yield Expected(text=plain, ids=[], must=nothing, may=nothing, endings=frozenset(), lost=(), unjudged=why)
            return
        cut = len(self.headers.always) if whole.endswith(self.headers.always) else 0
        whole = whole[: len(whole) - cut]
        places = [self._places(hidden, at, tools, whole, cut) for at in range(len(hidden))]
        turns = [
            self._turn(hidden, at, tools, whole, places)
            for at, message in enumerate(hidden)
            if message["role"] == "assistant"
        ]
        ids, spans = self.encoder.encode(whole)
        must = [turn.must for turn in turns if turn.must and not turn.silent]
        last = hidden[-1]["role"] == "assistant" and turns[-1].unclosed
        lost = tuple(_lost(places))
        endings = [*self._endings(hidden, tools, whole)] if last else []
        found = Expected(
            text=self.encoder.reveal(whole),
            ids=ids,
            must=_overlapping(spans, must),
            may=_overlapping(spans, [turn.may for turn in turns]),
            endings=frozenset(tuple(self.encoder.encode(ending)[0]) for ending in endings),
            lost=lost,
            unjudged="" if all(turn.must for turn in turns) else NO_HEADER,
            obstacle="the template leaves something out" if lost else _obstacle(hidden, turns, places),
        )
        yield found
        for ending in endings if last and turns[-1].must and not turns[-1].silent else []:
            ids, spans = self.encoder.encode(whole + ending)
            if ids[: len(found.ids)] != found.ids:
                trained = [*must[:-1], (must[-1][0], len(whole + ending))]
                yield replace(found, ids=ids, must=_overlapping(spans, trained), may=nothing, endings=frozenset())

    def obstacle(self, messages: list[Message], tools: list[Any] | None) -> str:
        """Return why the template cannot express a conversation, so that it has to be refused; "" if it can."""
        try:
            found = self.expect(messages, tools)
        except Exception:  # whatever a template raises
            return "the template raises"
        return "" if any(not one.obstacle for one in found) else found[0].obstacle

    def _endings(self, messages: list[Message], tools: Any, whole: str) -> Iterator[str]:
        """Yield what ends the last turn, where the rendering does not: what ends it when another message follows."""
        following: Message = {"role": "user", "content": "Hello"}
        if calls := messages[-1].get("tool_calls"):
            following = {"role": "tool", "content": "Hello", "tool_call_id": calls[0].get("id"), "name": "hello"}
        longer = self.renderer.rendered([*messages, following], tools) or ""
        found = self.stop.search(longer, len(whole))
        if longer.startswith(whole) and found and not longer[len(whole) : found.start()].strip():
            yield longer[len(whole) : found.end()]
            return
        # What follows changes the turn itself, so that a plain answer shows what ends a turn.
        plain = [QUESTION, {"role": "assistant", "content": "World"}, following]
        behind = (self.renderer.rendered(plain, tools) or "").partition("World")[2]
        found = self.stop.match(behind.lstrip())
        if found:
            yield behind[: len(behind) - len(behind.lstrip()) + found.end()]
        else:
            yield from self.stops

    def _places(self, messages: list[Message], at: int, tools: Any, whole: str, cut: int) -> Places:
        """Return each variant of a message with where it changes the rendering; None where it does not."""
        out = []
        for variant in variants(messages[at]):
            rendering = self.renderer.rendered([*messages[:at], variant.message, *messages[at + 1 :]], tools)
            if rendering is not None:
                out.append((variant, difference(whole, rendering[: len(rendering) - cut])))
        return out

    def _turn(self, messages: list[Message], at: int, tools: Any, whole: str, places: list[Places]) -> Turn:
        prompt = self.renderer.rendered(messages[:at], tools, True)
        if at == 0 and prompt is not None and not prompt.endswith(self.headers.header):
            prompt = None  # the template writes it behind a message, and nowhere else
        if prompt and not whole.startswith(prompt):
            prompt = prompt.removesuffix(self.headers.tail)
        regions = [_region(one) for one in places]
        own = regions[at]
        before = max((span[1] for span in regions[:at] if span and (own is None or span[1] <= own[0])), default=0)
        behind = (span[0] for span in regions[at + 1 :] if span)
        after = next((begin for begin in behind if own is None or begin >= own[0]), len(whole))
        if prompt is not None and whole.startswith(prompt) and len(prompt) < before:
            prompt = None  # the template leaves out of it what was said before
        start = self.headers.end(messages, at, tools, whole, prompt, before, own)
        if start is None:
            return Turn(must=None)
        rewritten = prompt is None or not whole.startswith(prompt)
        start = self._after_empty_think(messages, at, tools, whole, start, rewritten)
        found = self.stop.search(whole, start)
        silent = self._is_silent(messages, at, tools, places[at])
        if found is not None and found.start() < after and (own is None or found.end() <= after):
            return Turn(must=(start, found.end()), silent=silent)
        control = self.renderer.structural.search(whole, own[1] if own else start)
        end = control.start() if control else len(whole)
        said = max(start, len(whole[:end].rstrip()))
        return Turn(must=(start, said), may=(said, end), silent=silent, unclosed=True)

    def _after_empty_think(
        self, messages: list[Message], at: int, tools: Any, whole: str, start: int, rewritten: bool
    ) -> int:
        """Return where a turn begins behind an empty think block and up to one empty line of the template's."""
        opened = OPENED_THINK.search(whole, 0, start) is not None
        found = EMPTY_THINK.match(whole, start)
        if not found and (opened or rewritten):
            found = REST_OF_EMPTY_THINK.match(whole, start)
        while again := found and EMPTY_THINK.match(whole, found.end()):
            found = again
        if not found:
            return start
        own = 2
        content = messages[at].get("content") or ""
        if content != content.lstrip():
            other = {**messages[at], "content": OTHER_WORD + content}
            rendering = self.renderer.rendered([*messages[:at], other, *messages[at + 1 :]], tools)
            if rendering is not None and rendering.startswith(whole[: found.end()]):
                own = _newlines(rendering, found.end())
        return found.end() + min(own, _newlines(whole, found.end()))

    def _is_silent(self, messages: list[Message], at: int, tools: Any, own: Places) -> bool:
        """Return whether a turn's reasoning is shown where the conversation ends with it, but not in the whole.

        A template that takes no conversation that ends there is asked with the turn behind a question.
        """
        dropped = [variant.message for variant, span in own if variant.kind == REASONING and span is None]
        before = messages[:at]
        ending = self.renderer.rendered([*before, messages[at]], tools)
        if ending is None:
            before = [QUESTION]
            ending = self.renderer.rendered([*before, messages[at]], tools)
        return any(self.renderer.rendered([*before, other], tools) != ending for other in dropped)


def _region(places: Places) -> Span | None:
    """Return where the words of a message stand, reasoning and calls included; None where that cannot be seen."""
    found = [span for _, span in places if span]
    return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def _obstacle(messages: list[Message], turns: list[Turn], places: list[Places]) -> str:
    """Return why no mask of a rendering that has everything can be right, "" if one can."""
    regions = [_region(one) for one in places]
    speakers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    for at, turn in zip(speakers, turns, strict=True):
        own = regions[at]
        others = [one for number, one in enumerate(regions) if one and number != at]
        if turn.must is None:
            return NO_HEADER
        if own and any(own[0] <= one[0] < own[1] for one in others):
            return "another message stands inside of a turn"
        if own and not turn.unclosed and own[1] > turn.must[1]:
            return "a turn goes on behind its stop token"
        if turn.unclosed and at < len(messages) - 1:
            return "a turn is not closed"
    return ""


def _lost(places: list[Places]) -> Iterator[str]:
    """Yield what of the messages the rendering does not depend on: contents, names and arguments of calls."""
    for at, own in enumerate(places):
        for variant, span in own:
            if span is None and variant.kind != REASONING:
                yield f"{variant.kind} of turn {at}"


def _newlines(text: str, at: int) -> int:
    return len(text[at:]) - len(text[at:].lstrip("\n"))


def _overlapping(spans: list[Span], ranges: list[Span]) -> frozenset[int]:
    return frozenset(at for at, (a, b) in enumerate(spans) for start, end in ranges if a < end and b > start)


def judge(expected: Expected, ids: list[int], loss_mask: list[int]) -> str:
    """Return "exact", what is wrong with a sequence that was accepted, or "unjudged"."""
    if expected.unjudged:
        return "unjudged"
    if expected.endings:
        length = len(expected.ids)
        if tuple(ids[length:]) not in expected.endings or not all(loss_mask[length:]):
            return "the last turn does not end as inference ends it"
        ids, loss_mask = ids[:length], loss_mask[:length]
    trained = {at for at, one in enumerate(loss_mask) if one}
    if ids != expected.ids:
        return "ids differ"
    if expected.lost:
        return "a message is lost"
    if expected.must - trained:
        return "loss is missing"
    if trained - expected.must - expected.may:
        return "loss where none belongs"
    return "exact"
