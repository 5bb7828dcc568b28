"""Locating turns: one conversation rendered by a template of which it was learnt how it writes, with its turns found.

The conversation is rendered once, and the training tokens are those of this text; other renderings of it only show
where its texts went (`turn_spans`), and what inference would feed (`rule`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.anchors import Anchors
from sft_shards.formats.templates.closings import Closings
from sft_shards.formats.templates.control_tokens import ControlTokens
from sft_shards.formats.templates.generation_prompt import GenerationPrompt
from sft_shards.formats.templates.message_renderer import MessageRenderer
from sft_shards.formats.templates.omissions import lacks_reasoning, notes_of, require_all_rendered
from sft_shards.formats.templates.rendering import Rendering, Span, Spoken
from sft_shards.formats.templates.rule import require_one_stop, require_rule
from sft_shards.formats.templates.sentinels import RESERVED, TypedTokens, all_texts
from sft_shards.formats.templates.turn_parts import THINK, ReasoningMarkup, with_parts
from sft_shards.formats.templates.turn_spans import (
    by_blocks,
    by_marks,
    find_anchors,
    own_anchors,
    require_one_speaker,
    take_out_blocks,
)
from sft_shards.formats.templates.turn_starts import is_bare


@dataclass(frozen=True, kw_only=True)
class TurnLocator:
    """A template with its arguments, and what was learnt of it (see `learning`)."""

    renderer: MessageRenderer
    stop: re.Pattern[str]
    """Matches the tokens that a turn ends with."""
    control: re.Pattern[str]
    """Matches every special token."""
    arguments: Mapping[str, Any]
    """What every rendering is given beside the conversation, by name."""
    allow_control_tokens: bool
    """Whether control tokens in texts become control tokens, instead of staying text."""
    shown: GenerationPrompt = field(default_factory=GenerationPrompt)
    closings: Closings = field(default_factory=Closings)
    typed: TypedTokens = field(default_factory=lambda: TypedTokens(ControlTokens()))
    """Marks the tokens that stay text when somebody types them."""
    distrusted: bool = False
    """Whether turns that were located in a probe differed from the rule, so that every record is compared with it."""
    writes_arguments: bool = True
    """Whether the template writes the arguments of calls, if it writes calls at all."""
    markup: ReasoningMarkup | None = None
    """What the template writes around reasoning, if it writes any."""

    @property
    def reasoning_tags(self) -> frozenset[str]:
        """What a text has to hold so that reasoning is inlined in it."""
        markup = self.markup or THINK
        return frozenset({THINK.opener, THINK.closer, markup.opener, markup.closer} - {""})

    def beside(self, conversation: Conversation) -> dict[str, Any]:
        """Return what a rendering is given beside the messages: tools, documents and arguments, by name."""
        tools, documents = list(conversation.tools), list(conversation.documents)
        return {"tools": tools or None, "documents": documents or None, **self.arguments}

    def messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        """Return a conversation's messages, calls in the first form that templates take."""
        return next(self.renderer.forms(conversation.turns))

    def render(self, conversation: Conversation, *, by_rule: bool = False) -> Rendering:
        """Render a conversation, and find where its assistant speaks; see `ChatTemplate.render`."""
        messages, beside = self.messages(conversation), self.beside(conversation)
        texts = all_texts([messages, beside])
        if RESERVED.search(texts):
            raise RecordError("reserved_character", "the text holds a Unicode noncharacter (U+FDD0 to U+FDEF)")
        by_rule = by_rule and not (self.allow_control_tokens and self.stop.search(texts))  # the rule would stop there
        messages, whole = self.renderer.render_form(messages, beside)
        whole = self._closed(messages, whole)
        if not self.typed.pattern.search(texts):
            return self._located(conversation, messages, beside, whole, by_rule)
        messages, beside = self.typed.hide_messages(messages), self.typed.hide(beside)
        try:
            hidden = self._closed(messages, self.renderer.render(messages, beside))
            rendering = self._located(conversation, messages, beside, hidden, by_rule)
        except RecordError as error:  # what it quotes is marked
            raise error.with_detail(self.typed.reveal(error.detail).text) from None
        return self._revealed(rendering, whole)

    def _revealed(self, rendering: Rendering, plain: str) -> Rendering:
        """Return a rendering without the marks of typed control tokens, which must be the one without marks.

        Raises:
            RecordError: `typed_control_token`, the template treats a marked text otherwise.
        """
        revealed = self.typed.reveal(rendering.text)
        if take_out_blocks(plain)[0] != revealed.text:
            raise RecordError("typed_control_token", "the template decides by a control token that was typed")
        spoken = tuple(one.moved(revealed.place) for one in rendering.spoken)
        return replace(rendering, text=revealed.text, spoken=spoken, typed=revealed.typed)

    def _located(
        self,
        conversation: Conversation,
        messages: list[dict[str, Any]],
        beside: Mapping[str, Any],
        whole: str,
        by_rule: bool,
    ) -> Rendering:
        """Return a rendering with its turns, in which typed control tokens are marked."""
        text, blocks = take_out_blocks(whole)

        def plain(other: list[dict[str, Any]]) -> str:
            return take_out_blocks(self._closed(other, self.renderer.render(other, beside)))[0]

        anchors, first_placement = find_anchors(text, messages, plain)
        require_all_rendered(text, messages, anchors, arguments=self.writes_arguments)
        spoken = self._locate(text, blocks, conversation, messages, beside, plain, anchors, first_placement)
        if not self.allow_control_tokens:
            require_one_stop(text, spoken, self.stop)
        if (self.distrusted or by_rule) and (self.shown.header or not self.renderer.has_generation):
            require_rule(
                text,
                spoken,
                lambda number: self.renderer.prompt(messages[:number], beside),
                self.stop,
                every=self.distrusted,
            )
        spoken = self._with_parts(text, spoken, messages, anchors, first_placement)
        notes = notes_of(text, beside["tools"], spoken)
        if beside["documents"] and self._ignores_documents(messages, beside, whole):
            notes = ("documents_ignored", *notes)
        return Rendering(text=text, spoken=spoken, notes=notes)

    def _locate(
        self,
        text: str,
        blocks: list[Span],
        conversation: Conversation,
        messages: list[dict[str, Any]],
        beside: Mapping[str, Any],
        plain: Callable[[list[dict[str, Any]]], str],
        anchors: Anchors,
        first_placement: bool,
    ) -> tuple[Spoken, ...]:
        """Return the turns, by markers where the template has a generation prompt, else by its generation blocks.

        Blocks that hold a header or leave out what inference generates are so not believed.
        """
        if self.renderer.has_generation:
            for start, end in blocks:
                require_one_speaker(messages, anchors, start, end)
        if not self.renderer.has_generation or self.shown.header:
            try:
                return by_marks(
                    text,
                    conversation,
                    messages,
                    anchors=anchors,
                    first_placement=first_placement,
                    render=plain,
                    prompt=lambda number: self.renderer.prompt(messages[:number], beside),
                    shown=self.shown,
                    stop=self.stop,
                    control=self.control,
                    every_prompt=self.distrusted,
                    alike=is_bare(messages, self.reasoning_tags),
                )
            except RecordError as error:
                if not self.renderer.has_generation or error.reason == "turn_interrupted":
                    raise
        spoken = by_blocks(text, blocks, messages, anchors, self.stop)
        if self.shown.header:
            require_rule(text, spoken, lambda number: self.renderer.prompt(messages[:number], beside), self.stop)
            for one in spoken:
                if text.startswith(tuple(self.shown.header.split()[:1]), one.start):
                    detail = f"the generation block of turn {one.turn} holds its header, and no other way shows its end"
                    raise RecordError("turn_start_unknown", f"{detail}; give another --template")
        return spoken

    def _with_parts(
        self,
        text: str,
        spoken: Sequence[Spoken],
        messages: list[dict[str, Any]],
        anchors: Anchors,
        first_placement: bool,
    ) -> tuple[Spoken, ...]:
        """Return the turns with what is known of their reasoning and calls."""
        found = []
        for one in spoken:
            message = messages[one.turn]
            own = own_anchors(anchors.of(one.turn), len(message.get("tool_calls") or []))
            lacks = lacks_reasoning(text, message, own, first_placement)
            found.append(replace(with_parts(text, one, own, self.markup), reasoning_dropped=lacks))
        return tuple(found)

    def _closed(self, messages: list[dict[str, Any]], rendering: str) -> str:
        """Return a rendering without a generation prompt at its end, and with the stop token of its last turn."""
        return rendering.removesuffix(self.shown.always) + self.closings.of(messages)

    def _ignores_documents(self, messages: list[dict[str, Any]], beside: Mapping[str, Any], whole: str) -> bool:
        """Return whether the rendering is the same without documents."""
        try:
            return self._closed(messages, self.renderer.render(messages, {**beside, "documents": None})) == whole
        except RecordError:
            return False
