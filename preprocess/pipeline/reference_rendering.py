"""The reference implementation of the render stage: Jinja runs the chat template, one conversation at a time.

    ConversationBatch ──▶ RenderedBatch

It defines what is right, and takes what the batch implementation (see `render`) does not support.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

from sft_shards.formats.conversation import Conversation, as_json
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, TrainedText, TrainOn, train
from sft_shards.preprocess.pipeline.batch import ConversationBatch, Reject, RenderedBatch
from sft_shards.preprocess.pipeline.rendered_texts import as_batch

LARGEST_UNROLLED = 1 << 25
"""Characters of the histories of conversations that are unrolled together, as far as their messages tell."""


class UnrolledTooLargeError(MemoryError):
    """The histories of a batch of conversations are too large to be held together.

    Attributes:
        record: the number of the record in front of which the batch is to be cut.
    """

    def __init__(self, record: int) -> None:
        super().__init__(f"the histories of the records up to {record} are too large together")
        self.record = record


class ReferenceRendering:
    """Renders with Jinja, one conversation at a time.

    Args:
        template: the chat template, with the tokens of one tokenizer.
        policy: which of the assistant's words carry loss.
        with_digests: whether splits or duplicates need `Conversation.digest`.

    Raises:
        UsageError: what carries loss cannot be told under the template.
    """

    def __init__(self, template: ChatTemplate, policy: TrainOn, *, with_digests: bool) -> None:
        template.require_parts(policy)
        self._template, self._policy, self._with_digests = template, policy, with_digests

    def render(self, conversations: ConversationBatch, *, by_rule: bool = False) -> RenderedBatch:
        """Render every conversation; one that the template refuses is rejected.

        Args:
            by_rule: whether turns are compared with the rule, as `ChatTemplate.render` says.

        Raises:
            UnrolledTooLargeError: with `--rewritten-turns unroll`, and not by the rule.
        """
        if self._policy.rewritten == "unroll" and self._template.rewriting.rewrites and not by_rule:
            _require_small(conversations)
        rejects = list(conversations.rejects)
        records: list[int] = []
        trained: list[TrainedText] = []
        notes: dict[int, tuple[str, ...]] = {}
        digests: list[bytes] = []
        for row, conversation in conversations.each():
            record = conversations.first_record + row
            try:
                if isinstance(conversation, RecordError):
                    raise conversation
                if conversation.template_arguments:
                    self._require_parts(conversation)
                found = train(self._template, conversation, self._policy, by_rule=by_rule)
            except RecordError as error:
                rejects.append(Reject.of(record, error.kept()))
                continue
            records += [record] * len(found.texts)
            trained += found.texts
            if found.notes:
                notes[record] = found.notes
            if self._with_digests:
                digests += [self._digest(conversation, found.whole.text)] * len(found.texts)
        rejects.sort(key=lambda reject: reject.record)
        return as_batch(records, trained, digests, rejects, notes, unrolled=self._policy.rewritten == "unroll")

    def _require_parts(self, conversation: Conversation) -> None:
        """Refuse a record with whose arguments the template cannot do what the policy asks, as a job's are refused."""
        try:
            self._template.suited(conversation).require_parts(self._policy)
        except UsageError as error:
            raise RecordError("template_error", f"with the arguments of the record: {error}") from None

    def _digest(self, conversation: Conversation, text: str) -> bytes:
        """Return `Conversation.digest`; where documents or arguments change the text, its second half hashes the text.

        So they count for duplicates, and not for splits, which go by the first half.
        """
        digest = conversation.digest()
        if conversation.documents or conversation.template_arguments:
            bare = replace(conversation, documents=(), template_arguments={})
            with contextlib.suppress(RecordError):
                if self._template.render(bare).text == text:
                    return digest
            return digest[:8] + hashlib.blake2b(text.encode(), digest_size=8).digest()
        return digest


def _require_small(conversations: ConversationBatch) -> None:
    """Make sure, before any is rendered, that the histories of conversations can be held together.

    A conversation with n turns of the assistant has n histories, each at most as large as the conversation. Those of
    one conversation are bounded by `formats.templates.trained_texts.LONGEST_HISTORY`.

    Raises:
        UnrolledTooLargeError: they cannot.
    """
    size = 0
    for at, (row, one) in enumerate(conversations.each()):
        if isinstance(one, Conversation):
            speakers = sum(turn.role == "assistant" for turn in one.turns)
            size += speakers * len(as_json([one.messages(), list(one.tools)]))
        if size > LARGEST_UNROLLED and at:
            raise UnrolledTooLargeError(conversations.first_record + row)
