"""A chat template: one conversation in, one rendering out, with each assistant turn located or the record rejected.

The conversation is rendered once, and the training tokens are those of this text: rendering prefixes and taking
differences is not stable (templates rewrite history). What a template does is found out on probes when it is loaded
(`learning`), and its turns are located with that (`turn_locator`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import jinja2

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError, UsageError, nearest
from sft_shards.formats.template_arguments import RESERVED as RESERVED_NAMES
from sft_shards.formats.template_arguments import canonical
from sft_shards.formats.templates import plain_text
from sft_shards.formats.templates.control_tokens import ControlTokens
from sft_shards.formats.templates.history import History, Rewriting, rewriting
from sft_shards.formats.templates.learning import TemplateTokens, learn
from sft_shards.formats.templates.message_renderer import MessageRenderer
from sft_shards.formats.templates.probes import TOOL
from sft_shards.formats.templates.rendering import Rendering, TrainOn
from sft_shards.formats.templates.sandbox import variables_of
from sft_shards.formats.templates.sentinels import TypedTokens, any_of
from sft_shards.formats.templates.turn_locator import TurnLocator

MOST_VARIANTS = 64
"""Templates with other arguments that are kept; records seldom come with more than a few."""


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
        locator: finds its turns, with what was learnt of it.
        control: the tokens that stay text when somebody types them; none if they are allowed.
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
        self.control = ControlTokens()
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
            both = self.control | self._with_tools.control
            for template in (self, self._with_tools):
                template.control = both
                template.locator = replace(template.locator, typed=TypedTokens(both))
        if not for_tools:
            self._require_used(arguments or {})

    def _prepare(self, arguments: Mapping[str, Any]) -> None:
        """Take arguments, and find out by probes how the template writes with them."""
        self.arguments = dict(arguments)
        self._variants: dict[str, ChatTemplate | RecordError] = {}
        self._with_tools = self
        self._rewriting: Rewriting | None = None
        locator = TurnLocator(
            renderer=self.renderer,
            stop=any_of(self.tokens.stop),
            control=any_of(self.tokens.control),
            arguments=self.arguments,
            allow_control_tokens=self.allow_control_tokens,
        )
        learnt = learn(locator, self.source, self.tokens, self._label, known=self.control, tools=self._probe_tools)
        self.locator, self.control = learnt.locator, learnt.control
        self.separates_reasoning = learnt.separates_reasoning

    def _require_used(self, arguments: Mapping[str, Any]) -> None:
        for name in sorted(arguments.keys() - self.takes):
            taken = ", ".join(sorted(self.takes)) or "none"
            close = nearest(name, self.takes)
            hint = f"; {close}" if close.startswith("did") else ""
            raise UsageError(f"--template-arg {name}: {self._label} does not use it{hint} (it takes: {taken})")

    @property
    def header(self) -> str:
        """The generation prompt, "" where the template writes none."""
        return self.locator.shown.header

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
            return plain_text.render(conversation, self.tokens.around_plain_text, self.locator.typed)
        return self.suited(conversation).locator.render(conversation, by_rule=by_rule)

    @property
    def rewriting(self) -> Rewriting:
        """What the template does to earlier turns."""
        if self._rewriting is None:
            self._rewriting = rewriting(self, self._probe_tools)
        return self._rewriting

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
        locator = self.suited(conversation).locator
        beside, renderer = locator.beside(conversation), locator.renderer
        messages, _ = renderer.render_form(locator.messages(conversation), beside)
        return History(
            prompt=cache(lambda number: renderer.prompt(messages[:number], beside)),
            written=cache(lambda number: renderer.text(messages[: number + 1], beside)),
        )

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
        return self.locator.reasoning_tags
