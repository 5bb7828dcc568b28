"""The generation prompt of a template, learnt from one question and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sft_shards.formats.templates.thinking import without_think_opener


@dataclass(frozen=True, kw_only=True)
class GenerationPrompt:
    """What a template writes in front of answers."""

    header: str = ""
    """The generation prompt; "" where the template writes none."""
    always: str = ""
    """The header, where the template writes it at the end of a rendering whether it is asked for or not."""
    bare: str = ""
    """What stands in front of answers in history: the header, or as much of it as opens no reasoning, or the same with
    other white space in front of it."""
    lead: str = ""
    """What stands between the generation prompt and the answer (a space, say); the model generates it."""
    gap: str = ""
    """What stands between a question and its answer."""
    close: str = ""
    """What stands between an answer and the stop token, white space at its ends aside."""
    tail: str = ""
    """What a prompt has behind its question: what ends this, and the header; "" if the prompt does not hold it."""

    @property
    def surplus(self) -> str:
        """White space that ends the header and does not stand in front of answers in history, or "".

        An answer that begins with it makes the generation prompt a part of the rendering after all.
        """
        rest = self.header.removeprefix(self.bare)
        return rest if rest != self.header and rest.isspace() else ""


def learn_generation_prompt(
    *, question: str, answer: str, without: str, prompt: str, whole: str, stop: re.Pattern[str]
) -> GenerationPrompt:
    """Learn from the renderings of one question and its answer.

    Args:
        question, answer: the texts of the two.
        without: the rendering of the question.
        prompt: the same, with the generation prompt.
        whole: the rendering of both.
        stop: matches the tokens that end a turn.
    """
    header = prompt[len(without) :] if prompt.startswith(without) else ""
    before, _, after = whole.rpartition(answer)
    lead = before[len(prompt) :] if whole.startswith(prompt) and len(prompt) <= len(before) else ""
    found = stop.search(after)
    behind = after[found.end() :].lstrip() if found else ""
    always = behind if without.endswith(behind) else ""
    if not header and stop.sub("", always).strip() and without_think_opener(always) in before:
        header = always
    else:
        always = ""
    bare = without_think_opener(header)
    if not whole.startswith(prompt) and whole.startswith(without):
        shown = before[len(without) :]
        begins = header.startswith(shown) or header.lstrip() == shown.lstrip()
        bare = shown if shown.strip() and begins else bare
    _, held, tail = prompt.rpartition(question)
    gap = before.rpartition(question)[2]
    close = after[: found.start()].strip() if found else ""
    tail = tail if held else ""
    return GenerationPrompt(header=header, always=always, bare=bare, lead=lead, gap=gap, close=close, tail=tail)
