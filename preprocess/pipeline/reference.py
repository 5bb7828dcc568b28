"""The reference pipeline: every stage's reference implementation in a row.

It renders with Jinja, takes Hugging Face's ids and reads masks off their offsets, one record at a time. It can do
everything, and it defines what is right: a job compares a sample of its records with it while it runs, and tests and
benchmarks compare all of theirs. It is some twenty times slower than `Pipeline`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from sft_shards.formats.records import RecordFormat, get
from sft_shards.formats.template_arguments import canonical
from sft_shards.formats.templates import TOKENIZER, ChatTemplate, template_source
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch, ConversationBatch, RenderedBatch, TokenizedBatch
from sft_shards.preprocess.pipeline.containment import contain
from sft_shards.preprocess.pipeline.read import ReferenceReading
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.tokenize import ReferenceTokenization
from sft_shards.preprocess.pipeline.truncation import Limits, ReferenceTruncation
from sft_shards.preprocess.sources import RawBatch
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


class ReferencePipeline:
    """Turns raw records into sequences, one record at a time.

    Args:
        config: what the job does.
        template: the name of a template, or "tokenizer" for the tokenizer's own.
        tokenizer: the tokenizer, loaded.
        source: the template's text, where it is that of a file.

    Attributes:
        template: the chat template, made for the tokenizer.
        reading, rendering, tokenization, truncation: the reference implementation of each stage.

    Raises:
        UsageError: the template or the tokenizer cannot be used as the configuration says.
    """

    def __init__(self, config: JobConfig, template: str, tokenizer: Tokenizer, source: str | None = None) -> None:
        with_digests = bool(config.valid_fraction or config.test_fraction or config.dedup)
        self.template = configured_template(config, template, tokenizer, source)
        self.reading = ReferenceReading(config.fields)
        self.rendering = ReferenceRendering(self.template, config.policy, with_digests=with_digests)
        self.tokenization = ReferenceTokenization(tokenizer, self.template.control.all, straddle=config.straddle)
        self.truncation = ReferenceTruncation(limits_of(config))

    def read(self, raw: RawBatch, format_: RecordFormat, rows: Sequence[int] | None = None) -> ConversationBatch:
        """Read records, or some rows of them."""
        return self.reading.read(raw, format_, rows)

    def render(self, conversations: ConversationBatch, *, by_rule: bool = False) -> RenderedBatch:
        """Render conversations with Jinja; by the rule, turns are compared with what inference would generate."""
        return self.rendering.render(conversations, by_rule=by_rule)

    def tokenize(self, rendered: RenderedBatch) -> TokenizedBatch:
        """Encode texts with Hugging Face's tokenizers."""
        return self.tokenization.tokenize(rendered)

    def truncate(self, tokenized: TokenizedBatch) -> Batch:
        """Cut sequences to the length allowed.

        Raises:
            DataError: `--overlong error` and a sequence is too long; the record is named.
        """
        return self.truncation.truncate(tokenized)

    def batch(self, raw: RawBatch, form: str) -> Batch:
        """Return the sequences and rejects of consecutive records of one format.

        A record that raises anything unforeseen is rejected (see `containment`).

        Raises:
            DataError: as `truncate`.
        """
        format_ = get(form)
        return contain(raw, lambda records: self._batch(records, format_))

    def _batch(self, raw: RawBatch, format_: RecordFormat) -> Batch:
        return self.truncate(self.tokenize(self.render(self.read(raw, format_))))


def limits_of(config: JobConfig) -> Limits:
    """Return what a job says of lengths and splits."""
    return Limits(
        max_length=config.max_length,
        overlong=config.overlong,
        valid_fraction=config.valid_fraction,
        test_fraction=config.test_fraction,
        with_digests=config.dedup,
    )


def configured_template(config: JobConfig, name: str, tokenizer: Tokenizer, source: str | None = None) -> ChatTemplate:
    """Return the template of a job, with the arguments that its configuration names; see `load_template`."""
    return load_template(
        name,
        tokenizer,
        source=source,
        arguments=canonical(config.template_arg),
        allow_control_tokens=config.allow_control_tokens,
    )


@lru_cache(maxsize=32)
def load_template(
    name: str,
    tokenizer: Tokenizer,
    *,
    source: str | None = None,
    arguments: str = "{}",
    allow_control_tokens: bool = False,
) -> ChatTemplate:
    """Return a template by its name, made for a tokenizer.

    Args:
        source: the text of a template file, for which `name` is no more than a name.
        arguments: what the template is given beside the conversation, as JSON.

    Raises:
        UsageError: no template has this name, or it cannot be used with the tokenizer or these arguments.
    """
    own = name == TOKENIZER and source is None
    text = template_of(name, tokenizer, source)
    assert text is not None, "the plan chooses the tokenizer's template only where it has one"
    return ChatTemplate(
        name,
        text,
        tokenizer.template_tokens(own=own or source is not None),
        with_tools=tokenizer.tool_template if own else None,
        arguments=json.loads(arguments),
        allow_control_tokens=allow_control_tokens,
    )


def template_of(name: str, tokenizer: Tokenizer, source: str | None = None) -> str | None:
    """Return the text of a template: of the file, of the tokenizer (None where it has none), or of this name.

    Raises:
        UsageError: no template has this name.
    """
    if source is not None:
        return source
    return tokenizer.chat_template if name == TOKENIZER else template_source(name)
