"""The reference pipeline: every stage's reference implementation in a row.

It renders with Jinja, takes Hugging Face's ids and reads masks off their offsets, one record at a time. It can do
everything, and it defines what is right: a job compares a sample of its records with it while it runs, and tests and
benchmarks compare all of theirs. It is some twenty times slower than `Pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sft_shards.formats.records import RecordFormat, get
from sft_shards.formats.templates import TOKENIZER, ChatTemplate, template_source
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch, ConversationBatch, RenderedBatch, TokenizedBatch
from sft_shards.preprocess.pipeline.containment import contain
from sft_shards.preprocess.pipeline.read import ReferenceReading
from sft_shards.preprocess.pipeline.render import ReferenceRendering
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

    Attributes:
        template: the chat template, made for the tokenizer.
        reading, rendering, tokenization, truncation: the reference implementation of each stage.

    Raises:
        UsageError: the template or the tokenizer cannot be used as the configuration says.
    """

    def __init__(self, config: JobConfig, template: str, tokenizer: Tokenizer) -> None:
        with_digests = bool(config.valid_fraction or config.test_fraction or config.dedup)
        self.template = load_template(template, tokenizer, allow_control_tokens=config.allow_control_tokens)
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


@lru_cache(maxsize=4)
def load_template(name: str, tokenizer: Tokenizer, *, allow_control_tokens: bool = False) -> ChatTemplate:
    """Return a template by its name, made for a tokenizer.

    Raises:
        UsageError: no template has this name, or it cannot be used with the tokenizer.
    """
    own = name == TOKENIZER
    source = tokenizer.chat_template if own else template_source(name)
    assert source is not None, "the plan chooses the tokenizer's template only where it has one"
    return ChatTemplate(
        name,
        source,
        tokenizer.template_tokens(own=own),
        with_tools=tokenizer.tool_template if own else None,
        allow_control_tokens=allow_control_tokens,
    )
