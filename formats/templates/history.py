"""History: what inference was fed before each assistant turn, and which turns a template writes otherwise later on.

For turn k inference feeds `apply_chat_template(messages[:k], tools, add_generation_prompt=True)`, and what it generates
is what stands behind that in the rendering of `messages[:k + 1]`. A turn is *rewritten* where these two are no prefix
of the whole rendering. Qwen3, with two questions, writes the first answer without its reasoning:

    messages[:2]   … Hi<|im_end|>\\n<|im_start|>assistant\\n<think>\\nGreet\\n</think>\\n\\nHello<|im_end|>
    messages       … Hi<|im_end|>\\n<|im_start|>assistant\\nHello<|im_end|>\\n<|im_start|>user\\n …

Whoever trains that turn in the whole rendering teaches the model not to think. To ask for every turn of a record takes
quadratic time. So a template is asked once, with conversations of every kind (`rewriting`); dropped reasoning is seen
where the texts of a rendering are located, and only `--rewritten-turns skip`, `unroll` and `refuse` ask for each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.probes import last_turns, late_system, padded, probes
from sft_shards.formats.templates.rendering import Rendering, Spoken
from sft_shards.formats.templates.thinking import inlined_reasoning


@dataclass(frozen=True, kw_only=True)
class History:
    """What inference sees of one conversation, turn by turn; both raise RecordError where the template refuses.

    Each text is rendered once, however often it is asked for.
    """

    prompt: Callable[[int], str]
    """Gives what inference feeds before a turn, by the turn's number: `messages[:k]` and the generation prompt."""
    written: Callable[[int], str]
    """Gives the rendering that a turn is the last of: `messages[:k + 1]`."""

    def keeps(self, text: str, spoken: Spoken) -> bool:
        """Return whether a turn stands in a rendering behind what inference is fed, and as inference generates it.

        A turn that the template writes without a stop token where it is the last one may be followed by anything. If
        the template takes no conversation that ends here, inference never comes here, and the turn counts as kept.
        What inference feeds before the first message is not known.
        """
        try:
            written = self.written(spoken.turn)
        except RecordError:
            return True
        fed = ""
        with suppress(RecordError):
            fed = self.prompt(spoken.turn)
        if not text.startswith(fed) or not written.startswith(text[: spoken.stop]):
            return False
        tail, stop = written[spoken.stop :], text[spoken.stop : spoken.end]
        return not tail.strip() or (stop != "" and tail.startswith(stop))


class Renders(Protocol):
    """A chat template, as far as it is asked here."""

    def render(self, conversation: Conversation, *, by_rule: bool = False) -> Rendering:
        """Render a conversation, and find where its assistant speaks."""
        ...

    def history(self, conversation: Conversation) -> History:
        """Return what inference sees of a conversation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What a template does to earlier turns, found out with probes."""

    rewrites: frozenset[frozenset[str]]
    """Kinds of conversations (see `kinds`) in which a turn is rewritten, or that the template refuses."""
    differs: frozenset[frozenset[str]]
    """Kinds of conversations in which a turn is rewritten by more than the loss of its reasoning."""
    shown: frozenset[tuple[bool, bool, bool]]
    """Forms (see `form_of`) of turns whose reasoning is written where they are the last."""

    def forgets(self, conversation: Conversation, spoken: Spoken) -> bool:
        """Return whether a turn's reasoning was generated, and the template left it out because others follow."""
        is_last = spoken.turn == len(conversation.turns) - 1
        return spoken.reasoning_dropped and not is_last and form_of(conversation.turns[spoken.turn]) in self.shown

    def changes(self, conversation: Conversation) -> bool:
        """Return whether a conversation is of a kind of which turns are rewritten by more than lost reasoning."""
        own = kinds(conversation)
        return any(kind <= own for kind in self.differs)


def form_of(turn: Turn) -> tuple[bool, bool, bool]:
    """Return whether a turn calls tools, has its reasoning inside of its content, and has it as `reasoning` too."""
    return bool(turn.tool_calls), not (turn.reasoning or "").strip(), turn.reasoning_alias


def kinds(conversation: Conversation) -> frozenset[str]:
    """Return what a conversation has that templates decide by.

    `rounds`: a user's turn after an assistant's. `steps`: an assistant's turn after an assistant's, with tools at most
    in between. `late`: a system prompt after an assistant's turn. `tools`, `system`, and reasoning beside (`reasoning`)
    or inside of contents (`inlined`).
    """
    found: set[str] = set()
    roles: set[str] = set()
    before = ""
    for turn in conversation.turns:
        if turn.role == "assistant":
            found |= {"steps"} if before == "assistant" else set()
            found |= {"tools"} if turn.tool_calls else set()
            found |= {"reasoning"} if (turn.reasoning or "").strip() else set()
            found |= {"inlined"} if inlined_reasoning(turn.content or "") else set()
        elif turn.role in ("system", "developer"):
            found |= {"system", "late"} if "assistant" in roles else {"system"}
        elif turn.role == "user":
            found |= {"rounds"} if before == "assistant" else set()
        roles.add(turn.role)
        if turn.role in ("user", "assistant"):
            before = turn.role
    return frozenset(found | ({"tools"} if conversation.tools else set()))


def rewriting(template: Renders, tools: tuple[Any, ...] = ()) -> Rewriting:
    """Find out what a template does to earlier turns, with conversations of every kind.

    Args:
        tools: what a conversation offers that has no tools of its own.
    """

    def offering(*conversations: Conversation) -> Iterator[Conversation]:
        return (replace(one, tools=one.tools or tools) for one in conversations)

    rewrites, differs = set(), set()
    one_question = until(probes()[0], 1)
    for probe in offering(one_question, *probes(), late_system(), padded()):
        try:
            rendering, history = template.render(probe), template.history(probe)
        except RecordError:
            rewrites.add(kinds(probe))
            continue
        changed = [one for one in rendering.spoken if not history.keeps(rendering.text, one)]
        if changed:
            rewrites.add(kinds(probe))
        if not all(one.reasoning_dropped for one in changed) and probe.turns != padded().turns:
            differs.add(kinds(probe))
    dropped: dict[tuple[bool, bool, bool], bool] = {}
    for probe in offering(*last_turns()):
        with suppress(RecordError):
            found = template.render(probe).spoken[-1].reasoning_dropped
            dropped[form_of(probe.turns[-1])] = dropped.get(form_of(probe.turns[-1]), True) and found
    # A form that is always refused is not known to leave reasoning out, so a turn without it is not trained.
    shown = {form for form in map(form_of, (probe.turns[-1] for probe in last_turns())) if not dropped.get(form)}
    return Rewriting(rewrites=frozenset(rewrites), differs=frozenset(differs), shown=frozenset(shown))


def until(conversation: Conversation, number: int) -> Conversation:
    """Return a conversation up to and with one of its turns."""
    return replace(conversation, turns=conversation.turns[: number + 1])
