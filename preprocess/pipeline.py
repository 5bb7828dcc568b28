"""One record all the way: conversation, rendering, ids and mask, split. What fails on the way is a reject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from formats.conversation import Conversation
from formats.errors import RecordError
from formats.records import get
from formats.templates import TOKENIZER, ChatTemplate, Rendering, Span, template_source
from preprocess.config import JobConfig
from preprocess.encode import Encoded, Encoder
from preprocess.overlong import fit
from preprocess.sources import Item
from preprocess.tokenizer import Tokenizer

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Row:
    """A record that became a sequence."""

    record: int
    split: str
    encoded: Encoded
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A record that was left out."""

    record: int
    reason: str
    detail: str


class Pipeline:
    """Turns the records of one format into rows, in order."""

    def __init__(self, config: JobConfig, template: str, tokenizer: Tokenizer) -> None:
        self.config = config
        self.template = load_template(template, tokenizer, allow_control_tokens=config.allow_control_tokens)
        self.encoder = Encoder(tokenizer, straddle=config.straddle)

    def rows(self, items: Iterable[Item], form: str) -> Iterator[Row | Reject]:
        """One row or reject per item, in the order of the items."""
        stream = iter(items)
        while batch := list(islice(stream, BATCH)):
            yield from self._batch(batch, form)

    def _batch(self, batch: list[Item], form: str) -> Iterator[Row | Reject]:
        rejects: dict[int, Reject] = {}
        rendered: list[tuple[int, Conversation, Rendering, list[Span]]] = []
        for number, record in batch:
            try:
                conversation, rendering = self._render(record, form)
                spans = self.config.policy.spans(rendering, conversation)
                rendered.append((number, conversation, rendering, spans))
            except RecordError as error:
                rejects[number] = Reject(record=number, reason=error.reason, detail=error.detail)
        encoded = self.encoder.encode([one[2] for one in rendered], [one[3] for one in rendered])
        rows: dict[int, Row | Reject] = dict(rejects)
        for (number, conversation, rendering, _), sequence in zip(rendered, encoded, strict=True):
            rows[number] = self._row(number, conversation, rendering, sequence)
        for number, _ in batch:
            yield rows[number]

    def _render(self, record: Any, form: str) -> tuple[Conversation, Rendering]:
        if isinstance(record, RecordError):
            raise record
        conversation = get(form).read(record, self.config.fields)
        return conversation, self.template.render(conversation)

    def _row(
        self, number: int, conversation: Conversation, rendering: Rendering, sequence: Encoded | RecordError
    ) -> Row | Reject:
        try:
            if isinstance(sequence, RecordError):
                raise sequence
            fitted, cut = fit(sequence, self.config.max_length, self.config.overlong)
        except RecordError as error:
            return Reject(record=number, reason=error.reason, detail=error.detail)
        notes = [*rendering.notes]
        notes += ["cut"] if cut else []
        notes += ["typed_control_tokens"] if rendering.typed else []
        return Row(record=number, split=self.split(conversation), encoded=fitted, notes=tuple(notes))

    def split(self, conversation: Conversation) -> str:
        """The split of a conversation, by its content alone: it does not move when data is added or reordered."""
        if not (self.config.valid_fraction or self.config.test_fraction):
            return "train"
        digest = conversation.digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        if share < self.config.valid_fraction:
            return "valid"
        return "test" if share < self.config.valid_fraction + self.config.test_fraction else "train"


def load_template(name: str, tokenizer: Tokenizer, *, allow_control_tokens: bool = False) -> ChatTemplate:
    """A template by its name, made for a tokenizer."""
    own = name == TOKENIZER
    source = tokenizer.chat_template if own else template_source(name)
    assert source is not None, "the plan settles on the tokenizer's template only where it has one"
    return ChatTemplate(
        name,
        source,
        tokenizer.template_tokens(own=own),
        with_tools=tokenizer.tool_template if own else None,
        allow_control_tokens=allow_control_tokens,
    )
