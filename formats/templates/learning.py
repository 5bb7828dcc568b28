"""Learning how a template writes, by probes, when it is loaded: one that cannot be used is refused before any work.

Each step renders with what the steps before it found: the generation prompt and what closes a turn, the control tokens
that the template writes, whether its turns stand where the rule says, and what it writes around reasoning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates.closings import learn_closings, what_follows, writes_arguments
from sft_shards.formats.templates.control_tokens import ControlTokens
from sft_shards.formats.templates.generation_prompt import learn_generation_prompt
from sft_shards.formats.templates.probes import TOOL, probes, reasoning_probes
from sft_shards.formats.templates.sentinels import TypedTokens
from sft_shards.formats.templates.turn_locator import TurnLocator
from sft_shards.formats.templates.turn_parts import learn_markup


@dataclass(frozen=True, kw_only=True)
class TemplateTokens:
    """What a template needs from a tokenizer."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """`bos_token`, `eos_token` and so on, as `apply_chat_template` passes them."""
    opening: str = ""
    """What the tokenizer puts in front of texts by default: its BOS, or nothing."""
    control: tuple[str, ...] = ()
    """Every special token."""
    added: tuple[str, ...] = ()
    """Every other added token."""
    stop: tuple[str, ...] = ()
    """The tokens that a model of this tokenizer stops on."""

    @property
    def around_plain_text(self) -> tuple[str, str]:
        """What stands in front of a plain text and behind it: BOS, if the tokenizer has it so, and EOS."""
        return self.opening, self.variables.get("eos_token", "")


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What was learnt of a template with one set of arguments."""

    locator: TurnLocator
    control: ControlTokens
    """The tokens that stay text when somebody types them; none if they are allowed."""
    separates_reasoning: bool
    """Whether reasoning that the template writes can be told from the answer behind it."""


def learn(
    locator: TurnLocator,
    source: str,
    tokens: TemplateTokens,
    label: str,
    *,
    known: ControlTokens,
    tools: tuple[Any, ...],
) -> Learnt:
    """Learn how a template writes.

    Args:
        locator: the template with its arguments, of which nothing was learnt.
        source: its text.
        label: names it in an error.
        known: tokens that stay text because of other arguments, or of another template of the tokenizer.
        tools: what each probe offers.

    Raises:
        UsageError: it cannot render one question with its answer, or does not end the answer with a token that the
            model stops on.
    """
    locator = _with_prompt_and_closings(locator, tokens, label, tools)
    control = known
    if not locator.allow_control_tokens:
        written = _written(locator, source)
        control |= ControlTokens.find(tokens.control, tokens.added, tokens.stop, written)
        locator = replace(locator, typed=TypedTokens(control))
    locator = replace(locator, distrusted=not _agrees_on_probes(locator))
    locator, separates = _with_markup(locator, with_tools=bool(tools))
    beside = {**locator.beside(probes()[0]), "tools": [TOOL]}
    says_all = writes_arguments(lambda messages: locator.renderer.render_form(messages, beside)[1])
    locator = replace(locator, writes_arguments=says_all)
    return Learnt(locator=locator, control=control, separates_reasoning=separates)


def _with_prompt_and_closings(
    locator: TurnLocator, tokens: TemplateTokens, label: str, tools: tuple[Any, ...]
) -> TurnLocator:
    """Find the header and the lead on one question and its answer; the answer must end with a stop token.

    A template for tools is asked with a tool: without one, published ones fail on `for tool in tools`.
    """
    question, answer = "Hello", "Hi there"
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    probe = Conversation(turns=turns, tools=tools)
    beside = locator.beside(probe)
    asked: list[dict[str, Any]] = [{"role": "user", "content": question}]
    try:
        without = locator.renderer.text(asked, beside)
        prompt = locator.renderer.prompt(asked, beside)
        whole = locator.renderer.text([*asked, {"role": "assistant", "content": answer}], beside)
    except RecordError as error:
        raise UsageError(
            f"{label}: cannot render one question and its answer ({error.detail}); "
            "give another template with --template"
        ) from None
    shown = learn_generation_prompt(
        question=question, answer=answer, without=without, prompt=prompt, whole=whole, stop=locator.stop
    )
    closings = learn_closings(lambda messages: locator.renderer.render_form(messages, beside)[1], locator.stop)
    locator = replace(locator, shown=shown, closings=closings)
    try:
        locator.render(probe)
    except RecordError as error:
        stops = ", ".join(tokens.stop) or "none"
        raise UsageError(
            f"{label}: {error.reason.replace('_', ' ')} on one question and its answer "
            f"({error.detail}; the tokenizer's stop tokens: {stops}); {_way_out(locator, error, beside)}"
        ) from None
    return locator


def _way_out(locator: TurnLocator, error: RecordError, beside: Mapping[str, Any]) -> str:
    """Return what to do about a template whose answer cannot be located."""
    if error.reason == "turn_end_unknown":
        behind = "".join(what_follows(lambda messages: locator.renderer.render_form(messages, beside)[1]))
        if token := locator.control.match(behind.lstrip()):
            return (
                f"{token[0]!r} follows answers: if the model stops on it, list it as eos_token_id in a "
                "generation_config.json beside the tokenizer; else give another template with --template"
            )
    return "give another template with --template"


def _written(locator: TurnLocator, source: str) -> str:
    """Return what the template writes for the probes, and its source: some texts are only written for others."""
    found = [source]
    for probe in probes():
        beside = locator.beside(probe)
        with contextlib.suppress(RecordError):
            messages, whole = locator.renderer.render_form(probe.messages(), beside)
            found += [whole, locator.renderer.render(messages, beside, add_generation_prompt=True)]
    return "\n".join(found)


def _agrees_on_probes(locator: TurnLocator) -> bool:
    """Return whether the turns of probes of every kind stand where the rule says; a probe may be refused."""
    for probe in probes():
        try:
            locator.render(probe, by_rule=True)
        except RecordError as error:
            if error.reason == "turn_differs":
                return False
    return True


def _with_markup(locator: TurnLocator, *, with_tools: bool) -> tuple[TurnLocator, bool]:
    """Learn what stands around reasoning; the second is False where a probe shows some and not where it ends."""
    for reasoned, without, reasoning in reasoning_probes(with_tools):
        with contextlib.suppress(RecordError):
            turns = []
            for probe in (reasoned, without):
                rendering = locator.render(probe)
                first = rendering.spoken[0]
                turns.append(rendering.text[first.start : first.end])
            if reasoning in turns[0]:
                markup = learn_markup(turns[0], turns[1], reasoning, locator.shown.header)
                return replace(locator, markup=markup), markup is not None
    return locator, True
