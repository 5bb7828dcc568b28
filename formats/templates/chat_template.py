"""A chat template: one conversation in, one rendering out, with each assistant turn located or the record rejected.

The conversation is rendered once, and the training tokens are those of this text: rendering prefixes and taking
differences is not stable (templates rewrite history). What a template does is found out on a probe when it is loaded,
so that one that cannot be used is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import jinja2

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError, nearest
from sft_shards.formats.template_arguments import RESERVED as RESERVED_NAMES
from sft_shards.formats.template_arguments import canonical
from sft_shards.formats.templates import plain_text
from sft_shards.formats.templates.anchors import Anchors
from sft_shards.formats.templates.closings import Closings, learn_closings, what_follows
from sft_shards.formats.templates.control_tokens import ControlTokens
from sft_shards.formats.templates.generation_prompt import GenerationPrompt, learn_generation_prompt
from sft_shards.formats.templates.history import History, Rewriting, rewriting
from sft_shards.formats.templates.message_renderer import MessageRenderer
from sft_shards.formats.templates.omissions import lacks_reasoning, notes_of, require_all_rendered
from sft_shards.formats.templates.probes import TOOL, probes, reasoning_probes
from sft_shards.formats.templates.rendering import Rendering, Span, Spoken, TrainOn
from sft_shards.formats.templates.rule import require_one_stop, require_rule
from sft_shards.formats.templates.sandbox import variables_of
from sft_shards.formats.templates.sentinels import (
    RESERVED,
    TypedTokens,
    all_texts,
    any_of,
)
from sft_shards.formats.templates.turn_parts import THINK, ReasoningMarkup, learn_markup, with_parts
from sft_shards.formats.templates.turn_spans import (
    by_blocks,
    by_marks,
    find_anchors,
    own_anchors,
    require_one_speaker,
    take_out_blocks,
)

MOST_VARIANTS = 64
"""Templates with other arguments that are kept; records seldom come with more than a few."""


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


class ChatTemplate:
    """A Jinja chat template with the tokens of one tokenizer.

    Args:
        with_tools: another template for conversations that offer tools, where a tokenizer has one
            (`apply_chat_template` takes its `tool_use` for these).
        for_tools: whether this is such another template. It is probed with a tool, since it may take nothing else.
        arguments: what every rendering is given beside the conversation, by name, such as `enable_thinking`. A
            conversation's own arguments come before these.
        allow_control_tokens: whether control tokens in texts become control tokens, instead of staying text.

    Attributes:
        name: "tokenizer", the name of a built-in one, or that of a file.
        source: its text, the one for conversations without tools.
        tools_source: that of the second one, or None.
        arguments: those of `arguments` that it uses.
        sha256: hash of the template's text.
        renderer: renders messages with it.
        control: the tokens that stay text when somebody types them; none if they are allowed.
        distrusted: whether turns that were located in a probe differed from the rule, so that every record is compared
            with it (see `rule`).
        separates_reasoning: whether reasoning that the template writes can be told from the answer behind it.

    Raises:
        UsageError: the template is no Jinja, cannot render one question with its answer, or does not end the answer
            with a token that the model stops on; or it does not use an argument.
    """

    def __init__(
        self,
        name: str,
        source: str,
        tokens: TemplateTokens,
        *,
        with_tools: str | None = None,
        for_tools: bool = False,
        arguments: Mapping[str, Any] | None = None,
        allow_control_tokens: bool = False,
    ) -> None:
        self.name = name
        self.source = source
        self.tools_source = with_tools
        self.allow_control_tokens = allow_control_tokens
        self.sha256 = hashlib.sha256(source.encode("utf-8")).hexdigest()
        self.tokens = tokens
        self._label = f"template {name}" + (" (the second one, tool_use, for records with tools)" if for_tools else "")
        self._probe_tools = (TOOL,) if for_tools else ()
        try:
            self.renderer = MessageRenderer(source, tokens.variables)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(
                f"{self._label}: line {error.lineno}: {error.message}; give another by --template"
            ) from None
        self._control = any_of(tokens.control)
        self._stop = any_of(tokens.stop)
        self.control = ControlTokens()
        self._typed = TypedTokens(self.control)
        self._prepare(self._relevant(arguments or {}))
        if with_tools is not None:
            self._with_tools = ChatTemplate(
                name,
                with_tools,
                tokens,
                for_tools=True,
                arguments=arguments,
                allow_control_tokens=allow_control_tokens,
            )
            self.control = self._with_tools.control = self.control | self._with_tools.control
            self._typed = self._with_tools._typed = TypedTokens(self.control)
        if not for_tools:
            self._require_used(arguments or {})

    def _prepare(self, arguments: Mapping[str, Any]) -> None:
        """Take arguments, and find out by probes how the template writes with them."""
        self.arguments = dict(arguments)
        self._variants: dict[str, ChatTemplate | RecordError] = {}
        self._with_tools = self
        self._shown = GenerationPrompt()
        self.distrusted = False
        self._markup: ReasoningMarkup | None = None
        self._closings = Closings()
        self._typed = TypedTokens(ControlTokens())
        self._rewriting: Rewriting | None = None
        self._probe()
        if not self.allow_control_tokens:
            tokens = self.tokens
            self.control |= ControlTokens.find(tokens.control, tokens.added, tokens.stop, self._written())
            self._typed = TypedTokens(self.control)
        self.distrusted = not self._agrees_on_probes()
        self.separates_reasoning = self._learn_markup()

    def _require_used(self, arguments: Mapping[str, Any]) -> None:
        for name in sorted(arguments.keys() - self.takes):
            taken = ", ".join(sorted(self.takes)) or "none"
            close = nearest(name, self.takes)
            hint = f"; {close}" if close.startswith("did") else ""
            raise UsageError(f"--template-arg {name}: {self._label} does not use it{hint} (it takes: {taken})")

    @property
    def header(self) -> str:
        """The generation prompt, "" where the template writes none."""
        return self._shown.header

    @property
    def takes(self) -> frozenset[str]:
        """The names of the arguments that the template or the second one uses."""
        return self._taken | self._with_tools._taken

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The names of the arguments that this very template uses."""
        return variables_of(self.source) - RESERVED_NAMES - self.tokens.variables.keys()

    def _relevant(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name in self._taken} if arguments else {}

    def suited(self, conversation: Conversation) -> ChatTemplate:
        """Return the template for a conversation: the second one where it offers tools, with the arguments it brings.

        Raises:
            RecordError: `template_error`, the template cannot render even one question and its answer with these.
        """
        template = self._with_tools if conversation.tools else self
        if not conversation.template_arguments:
            return template
        return template._variant(conversation.template_arguments)

    def _variant(self, arguments: Mapping[str, Any]) -> ChatTemplate:
        """Return this template with other arguments on top of its own, compiled once and probed once for each set."""
        merged = self.arguments | self._relevant(arguments)
        key = canonical(merged)
        if key == canonical(self.arguments):
            return self
        if key not in self._variants:
            if len(self._variants) == MOST_VARIANTS:
                self._variants.clear()
            self._variants[key] = self._with(merged)
        found = self._variants[key]
        if isinstance(found, RecordError):
            raise found
        return found

    def _with(self, arguments: Mapping[str, Any]) -> ChatTemplate | RecordError:
        other = copy.copy(self)
        try:
            other._prepare(arguments)
        except UsageError as error:
            return RecordError("template_error", f"with the arguments {canonical(arguments):.200}: {error}").kept()
        return other

    def render(self, conversation: Conversation, *, by_rule: bool = False) -> Rendering:
        """Render a conversation, and find where its assistant speaks.

        Args:
            by_rule: whether some of its turns are compared with the rule although the template is trusted.

        Raises:
            RecordError: `reserved_character`, `template_error` (the template refuses the conversation),
                `typed_control_token` (the template decides by one), or one of the reasons of `turn_spans` (its turns
                cannot be located for certain).
        """
        if conversation.is_plain_text:
            return plain_text.render(conversation, self.tokens.around_plain_text, self._typed)
        return self.suited(conversation)._rendered(conversation, by_rule)

    def _rendered(self, conversation: Conversation, by_rule: bool = False) -> Rendering:
        messages, beside = self._messages(conversation), self._beside(conversation)
        texts = all_texts([messages, beside])
        if RESERVED.search(texts):
            raise RecordError("reserved_character", "the text holds a Unicode noncharacter (U+FDD0 to U+FDEF)")
        by_rule = by_rule and not (self.allow_control_tokens and self._stop.search(texts))  # the rule would stop there
        messages, whole = self.renderer.render_form(messages, beside)
        whole = self._closed(messages, whole)
        if not self._typed.pattern.search(texts):
            return self._located(conversation, messages, beside, whole, by_rule)
        messages, beside = self._typed.hide_messages(messages), self._typed.hide(beside)
        try:
            hidden = self._closed(messages, self.renderer.render(messages, beside))
            rendering = self._located(conversation, messages, beside, hidden, by_rule)
        except RecordError as error:  # what it quotes is marked
            raise error.with_detail(self._typed.reveal(error.detail).text) from None
        return self._revealed(rendering, whole)

    def _revealed(self, rendering: Rendering, plain: str) -> Rendering:
        """Return a rendering without the marks of typed control tokens, which must be the one without marks.

        Raises:
            RecordError: `typed_control_token`, the template treats a marked text otherwise.
        """
        revealed = self._typed.reveal(rendering.text)
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
        require_all_rendered(text, messages, anchors)
        spoken = self._locate(text, blocks, conversation, messages, beside, plain, anchors, first_placement)
        if not self.allow_control_tokens:
            require_one_stop(text, spoken, self._stop)
        if (self.distrusted or by_rule) and (self.header or not self.renderer.has_generation):
            require_rule(
                text,
                spoken,
                lambda number: self.renderer.prompt(messages[:number], beside),
                self._stop,
                every=self.distrusted,
            )
        spoken = self._with_parts(text, spoken, messages, anchors, first_placement)
        notes = notes_of(text, beside["tools"], spoken)
        if beside["documents"] and self._ignores_documents(messages, beside, whole):
            notes = ("documents_ignored", *notes)
        return Rendering(text=text, spoken=spoken, notes=notes)

    @property
    def rewriting(self) -> Rewriting:
        """What the template does to earlier turns."""
        if self._rewriting is None:
            self._rewriting = rewriting(self)
        return self._rewriting

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
        if not self.renderer.has_generation or self.header:
            try:
                return by_marks(
                    text,
                    conversation,
                    messages,
                    anchors=anchors,
                    first_placement=first_placement,
                    render=plain,
                    prompt=lambda number: self.renderer.prompt(messages[:number], beside),
                    shown=self._shown,
                    stop=self._stop,
                    control=self._control,
                    every_prompt=self.distrusted,
                )
            except RecordError as error:
                if not self.renderer.has_generation or error.reason == "turn_interrupted":
                    raise
        spoken = by_blocks(text, blocks, messages, anchors, self._stop)
        if self.header:
            require_rule(text, spoken, lambda number: self.renderer.prompt(messages[:number], beside), self._stop)
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
            lacks = lacks_reasoning(message, own, first_placement)
            found.append(replace(with_parts(text, one, own, self._markup), reasoning_dropped=lacks))
        return tuple(found)

    def prompt(self, conversation: Conversation, number: int) -> str:
        """Return what inference feeds before a turn: the messages before it, with the generation prompt.

        Raises:
            RecordError: `template_error`, the template refuses these messages.
        """
        return self.history(conversation).prompt(number)

    def history(self, conversation: Conversation) -> History:
        """Return what inference sees of a conversation, turn by turn.

        Raises:
            RecordError: `template_error`, the template refuses the conversation.
        """
        suited = self.suited(conversation)
        beside = suited._beside(conversation)
        messages, _ = suited.renderer.render_form(suited._messages(conversation), beside)
        return History(
            prompt=cache(lambda number: suited.renderer.prompt(messages[:number], beside)),
            written=cache(lambda number: suited.renderer.text(messages[: number + 1], beside)),
        )

    def _beside(self, conversation: Conversation | None = None) -> dict[str, Any]:
        """Return what a rendering is given beside the messages: tools, documents and arguments, by name."""
        tools = self._probe_tools if conversation is None else conversation.tools
        documents = () if conversation is None else conversation.documents
        return {"tools": list(tools) or None, "documents": list(documents) or None, **self.arguments}

    def _messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        return next(self.renderer.forms(conversation.turns))

    def _closed(self, messages: list[dict[str, Any]], rendering: str) -> str:
        """Return a rendering without a generation prompt at its end, and with the stop token of its last turn."""
        return rendering.removesuffix(self._shown.always) + self._closings.of(messages)

    def _written(self) -> str:
        """Return what the template writes for the probes, and its source: some texts are only written for others."""
        found = [self.source]
        for probe in probes():
            beside = self._beside(probe)
            with contextlib.suppress(RecordError):
                messages, whole = self.renderer.render_form(probe.messages(), beside)
                found += [whole, self.renderer.render(messages, beside, add_generation_prompt=True)]
        return "\n".join(found)

    def _ignores_documents(self, messages: list[dict[str, Any]], beside: Mapping[str, Any], whole: str) -> bool:
        """Return whether the rendering is the same without documents."""
        try:
            return self._closed(messages, self.renderer.render(messages, {**beside, "documents": None})) == whole
        except RecordError:
            return False

    def _agrees_on_probes(self) -> bool:
        """Return whether the turns of probes of every kind stand where the rule says; a probe may be refused."""
        for probe in probes():
            try:
                self._rendered(probe, by_rule=True)
            except RecordError as error:
                if error.reason == "turn_differs":
                    return False
        return True

    def require_parts(self, policy: TrainOn) -> None:
        """Refuse what can be done for no record.

        Raises:
            UsageError: reasoning is to carry no loss, and cannot be told from answers.
        """
        if not policy.reasoning and policy.turns != "everything" and not self.separates_reasoning:
            raise UsageError(
                f"{self._label}: --no-train-reasoning cannot be done: what it writes around reasoning cannot be told "
                "from the answer; leave the option out, or choose another --template"
            )
        if self._with_tools is not self:
            self._with_tools.require_parts(policy)

    @property
    def reasoning_tags(self) -> frozenset[str]:
        """What a text has to hold so that reasoning is inlined in it."""
        markup = self._markup or THINK
        return frozenset({THINK.opener, THINK.closer, markup.opener, markup.closer} - {""})

    def _learn_markup(self) -> bool:
        """Learn what stands around reasoning; return False where a probe shows some and not where it ends."""
        for reasoned, without, reasoning in reasoning_probes(bool(self._probe_tools)):
            with contextlib.suppress(RecordError):
                turns = []
                for probe in (reasoned, without):
                    rendering = self._rendered(probe)
                    first = rendering.spoken[0]
                    turns.append(rendering.text[first.start : first.end])
                if reasoning in turns[0]:
                    self._markup = learn_markup(turns[0], turns[1], reasoning, self.header)
                    return self._markup is not None
        return True

    def _probe(self) -> None:
        """Find the header and the lead on one question and its answer; the answer must end with a stop token.

        A template for tools is asked with a tool: without one, published ones fail on `for tool in tools`.
        """
        beside = self._beside()
        question, answer = "Hello", "Hi there"
        asked: list[dict[str, Any]] = [{"role": "user", "content": question}]
        try:
            without = self.renderer.text(asked, beside)
            prompt = self.renderer.prompt(asked, beside)
            whole = self.renderer.text([*asked, {"role": "assistant", "content": answer}], beside)
        except RecordError as error:
            raise UsageError(
                f"{self._label}: cannot render one question and its answer ({error.detail}); "
                "give another template with --template"
            ) from None
        self._shown = learn_generation_prompt(
            question=question, answer=answer, without=without, prompt=prompt, whole=whole, stop=self._stop
        )
        self._closings = learn_closings(lambda messages: self.renderer.render_form(messages, beside)[1], self._stop)
        turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
        probe = Conversation(turns=turns, tools=self._probe_tools)
        try:
            self._rendered(probe)
        except RecordError as error:
            stops = ", ".join(self.tokens.stop) or "none"
            raise UsageError(
                f"{self._label}: {error.reason.replace('_', ' ')} on one question and its answer "
                f"({error.detail}; the tokenizer's stop tokens: {stops}); {self._way_out(error)}"
            ) from None

    def _way_out(self, error: RecordError) -> str:
        """Return what to do about a template whose answer cannot be located."""
        if error.reason == "turn_end_unknown":
            behind = "".join(what_follows(lambda messages: self.renderer.render_form(messages, self._beside())[1]))
            if token := self._control.match(behind.lstrip()):
                return (
                    f"{token[0]!r} follows answers: if the model stops on it, list it as eos_token_id in a "
                    "generation_config.json beside the tokenizer; else give another template with --template"
                )
        return "give another template with --template"
