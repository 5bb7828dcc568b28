"""Where a turn begins: behind what inference feeds, or where history writes that otherwise, behind its header.

By transformers' renderings alone; nothing of the pipeline is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from benchmarks.templates.regions import OTHER_WORD
from benchmarks.templates.rendering import Message, Renderer

QUESTION = {"role": "user", "content": "Hello"}
THINK_OPENER = re.compile(
    r"(?:<think>|<seed:think>|<\|channel>thought|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>)"
    r"\s*(?:</think>|</seed:think>|<channel\|>|<\|END_THINKING\|>)?\s*\Z"
)
NO_THINKING = re.compile(r"</think>\s*\Z")
"""What a prompt ends with that says that there is no reasoning."""


class Headers:
    """What one template writes in front of answers.

    Args:
        renderer: renders with the template.
        stop: matches the tokens that end a turn.

    Attributes:
        always: the generation prompt of a template that writes it always, "" if it does not.
        tail: the token that a template puts behind everything, generation prompts too; "" if it does not.
    """

    def __init__(self, renderer: Renderer, stop: re.Pattern[str]) -> None:
        self.renderer = renderer
        self.stop = stop
        self.header = self._header()
        self.always = "" if self.header else self._always_header()
        self.tail = self._tail()
        self.shown = self._shown()
        answer = {"role": "assistant", "content": "World"}
        self.gap = (
            (self.renderer.rendered([QUESTION, answer], None) or "").rpartition("World")[0].rpartition("Hello")[2]
        )

    def end(
        self,
        messages: list[Message],
        at: int,
        tools: Any,
        whole: str,
        prompt: str | None,
        before: int,
        own: tuple[int, int] | None,
    ) -> int | None:
        """Return where the header of message `at` ends in the rendering `whole`, None if it has none.

        Args:
            prompt: what inference feeds before it; None if the template refuses that.
            before: where the words of the messages before it end.
            own: where its own words stand.
        """
        marked = self._marked(messages, tools, own)
        if marked is not None:
            return marked
        fed = THINK_OPENER.sub("", prompt) if prompt else ""
        first = own[0] if own else len(whole)
        if prompt is not None and whole.startswith(prompt):
            start: int | None = len(prompt)
        elif fed and whole.startswith(fed) and before <= len(fed) <= first:
            start = len(fed)
        else:
            found = re.match(_spaced(prompt), whole) if prompt and own else None
            start = self._behind_words(messages, at, tools, whole, (before, own), found, prompt)
        if start is None:
            start = self._behind_header(messages[:at], tools, prompt, whole, before, own)
        if start is None and own:
            asked = (self.renderer.rendered([QUESTION], None, True) or "").rpartition("Hello")[2]
            found = [None, *re.finditer(_spaced(asked), whole[: own[0]])][-1] if asked.strip() else None
            start = self._behind_words(messages, at, tools, whole, (before, own), found, asked)
        silent = NO_THINKING.sub("", self.header or self.always)
        if start is None and own and silent.strip() and silent in whole[before : own[0]]:
            start = whole.rindex(silent, before, own[0]) + len(silent)
        if start is None and own and self.gap and self.gap in whole[before : own[0]]:
            said = self._content_start(messages, at, tools, whole) or own[0]
            at_end = whole.endswith(self.gap, 0, said)  # a question's white space may stand in front of it
            start = said if at_end else whole.index(self.gap, before) + len(self.gap)
        return start

    def _marked(self, messages: list[Message], tools: Any, own: tuple[int, int] | None) -> int | None:
        """Return where a turn begins that a template without a generation prompt marks as generated; else None."""
        if self.header or self.always or not own:
            return None
        spans = self.renderer.generated(messages, tools)
        return next((start for start, end in spans if start <= own[0] < end), None)

    def _header(self) -> str:
        """Return the generation prompt of a question, "" if there is none."""
        without, prompt = self.renderer.rendered([QUESTION], None), self.renderer.rendered([QUESTION], None, True)
        return prompt[len(without) :] if without is not None and prompt and prompt.startswith(without) else ""

    def _always_header(self) -> str:
        """Return the generation prompt of a template that writes it always, "" if it does not."""
        first = self.renderer.rendered([QUESTION], None)
        second = self.renderer.rendered([QUESTION, {"role": "assistant", "content": "World"}], None)
        found = list(self.stop.finditer(second or ""))
        if not first or not second or not found:
            return ""
        always = second[found[-1].end() :].lstrip()
        known = THINK_OPENER.sub("", always) in second.rpartition("World")[0]
        return always if known and first.endswith(always) else ""

    def _tail(self) -> str:
        """Return the token that a template puts behind everything, generation prompts too; "" if it does not."""
        last = re.compile(rf"(?:{self.renderer.control.pattern})\s*\Z")
        written = {self.renderer.rendered([QUESTION], None, prompt) or "" for prompt in (False, True)}
        ends = {found[0] if found else "" for found in map(last.search, written)}
        return ends.pop() if len(written) == 2 and len(ends) == 1 else ""

    def _shown(self) -> str:
        """Return what history writes in front of a plain answer."""
        without = self.renderer.rendered([QUESTION], None)
        whole = self.renderer.rendered([QUESTION, {"role": "assistant", "content": "World"}], None)
        if without is None or whole is None or not whole.startswith(without):
            return ""
        return whole[len(without) :].rpartition("World")[0]

    def _behind_header(
        self, fed: list[Message], tools: Any, prompt: str | None, whole: str, before: int, own: tuple[int, int] | None
    ) -> int | None:
        """Return where a rewritten turn begins: behind its header, of which an opener of reasoning may be left out."""
        if own is None:
            return None
        without = self.renderer.rendered(fed, tools) if fed else None
        header = prompt[len(without) :] if prompt and without is not None and prompt.startswith(without) else ""
        headers = [one for one in (header, self.header, self.always) if one.strip()]
        for one in [shorter for header in headers for shorter in self._shorter(header) if shorter.strip()]:
            found = whole.rfind(one, before, own[0])
            if found >= 0:
                return found + len(one)
        return None

    def _behind_words(
        self,
        messages: list[Message],
        at: int,
        tools: Any,
        whole: str,
        between: tuple[int, tuple[int, int] | None],
        found: re.Match[str] | None,
        prompt: str | None,
    ) -> int | None:
        """Return where a turn begins behind a prompt that history writes with other white space; None if it does not.

        White space behind it is the template's where the prompt has some at its end too, but for the turn's own.
        """
        before, own = between
        if not found or not own or not prompt or not before <= found.end() <= own[0]:
            return None
        run = len(whole[found.end() :]) - len(whole[found.end() :].lstrip())
        if not run or prompt == prompt.rstrip():
            return found.end()
        return found.end() + run - min(self._own_space(messages, at, tools, whole), run)

    def _content_start(self, messages: list[Message], at: int, tools: Any, whole: str) -> int | None:
        """Return where a message's content begins, white space and tags included; None if it is written otherwise."""
        other = {**messages[at], "content": OTHER_WORD + (messages[at].get("content") or "")}
        rendering = self.renderer.rendered([*messages[:at], other, *messages[at + 1 :]], tools) or ""
        found = rendering.find(OTHER_WORD)
        return found if found >= 0 and rendering.replace(OTHER_WORD, "", 1) == whole else None

    def _own_space(self, messages: list[Message], at: int, tools: Any, whole: str) -> int:
        """Return how many characters of white space in front of a message's words are its own."""
        content = messages[at].get("content") or ""
        if content == content.lstrip():
            return 0
        other = {**messages[at], "content": content.lstrip()}
        stripped = self.renderer.rendered([*messages[:at], other, *messages[at + 1 :]], tools)
        return max(len(whole) - len(stripped), 0) if stripped is not None else 0

    def _shorter(self, header: str) -> Iterator[str]:
        """Yield a header, without an opener of reasoning or white space, and as much as stands before a plain answer.

        It is also cut at the end of the line of its last control token.
        """
        yield header
        yield THINK_OPENER.sub("", header)
        yield header.lstrip()
        tokens = list(self.renderer.control.finditer(header))
        line = header.find("\n", tokens[-1].end()) if tokens else -1
        if line >= 0:
            yield header[: line + 1]
        yield header.lstrip().rstrip("\n")
        if self.shown and header.startswith(self.shown):
            yield self.shown


def _spaced(words: str) -> str:
    """Return a pattern that matches words with any white space in them."""
    return r"\s*" + r"\s*".join(map(re.escape, "".join(words.split())))
