"""The pipeline of a process: raw records to sequences with loss masks, in four stages.

    RawBatch ──read──▶ ConversationBatch ──render──▶ RenderedBatch ──tokenize──▶ TokenizedBatch ──truncate──▶ Batch

Each stage has a batch implementation, which does for many records at once what can be done so, and a reference
implementation of the same signature, which can do everything. What the batch implementation of a stage does not support
goes to the reference implementation of that stage and rejoins at once: a record with tools is rendered by Jinja and
still tokenized together with all the others. Both give the same bytes, which `Verification` checks on a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sft_shards.formats.records import RecordFormat, get
from sft_shards.formats.template_arguments import canonical
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch
from sft_shards.preprocess.pipeline.containment import contain
from sft_shards.preprocess.pipeline.read import BatchReading
from sft_shards.preprocess.pipeline.reference import ReferencePipeline, limits_of
from sft_shards.preprocess.pipeline.reference_rendering import UnrolledTooLargeError
from sft_shards.preprocess.pipeline.render import BatchRendering
from sft_shards.preprocess.pipeline.tokenize import BatchTokenization
from sft_shards.preprocess.pipeline.truncation import BatchTruncation
from sft_shards.preprocess.pipeline.verification import Verification
from sft_shards.preprocess.source_options import reading
from sft_shards.preprocess.sources import RawBatch
from sft_shards.preprocess.tokenizer.backends import Backend, HuggingFace
from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

STAGES = ("read", "render", "tokenize", "truncate")


class Pipeline:
    """Turns raw records into sequences, many at once.

    Args:
        config: what the job does.
        template: the name of a template, or "tokenizer" for the tokenizer's own.
        tokenizer: the tokenizer, loaded.
        backend: gives the token ids (default: Hugging Face's tokenizers).
        source: the template's text, where it is that of a file.

    Attributes:
        reference: the pipeline that defines what is right.

    Raises:
        UsageError: the template or the tokenizer cannot be used as the configuration says.
    """

    def __init__(
        self,
        config: JobConfig,
        template: str,
        tokenizer: Tokenizer,
        backend: Backend | None = None,
        *,
        source: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.reference = ReferencePipeline(config, template, tokenizer, source)
        backend = backend or HuggingFace(tokenizer)
        self._make: Callable[[Mapping[str, object]], Pipeline] = lambda options: Pipeline(
            config.of(options), template, tokenizer, backend, source=source
        )
        self._others: dict[str, Pipeline] = {}
        self._reading = BatchReading(config.fields, self.reference.reading)
        with_digests = bool(config.valid_fraction or config.test_fraction or config.dedup)
        self._rendering = BatchRendering(
            self.reference.template, config.policy, self.reference.rendering, with_digests=with_digests
        )
        self._tokenization = BatchTokenization(
            backend,
            byte_lengths(tokenizer) if config.straddle != "split" else None,
            self.reference.tokenization,
            train_straddling=config.straddle != "skip",
        )
        self._truncation = BatchTruncation(limits_of(config), self.reference.truncation)
        self._verification = Verification(self.reference, backend.name, config.verify_every)

    @property
    def fallbacks(self) -> dict[str, int]:
        """How many records each stage has handed to its reference implementation so far."""
        stages = (self._reading, self._rendering, self._tokenization, self._truncation)
        return dict(zip(STAGES, (stage.fallbacks for stage in stages), strict=True))

    def of(self, options: Mapping[str, object]) -> Pipeline:
        """Return the pipeline for sources with options of their own, made once; without any, this one."""
        options = reading(options)
        if not options:
            return self
        key = canonical(options)
        if key not in self._others:
            self._others[key] = self._make(options)
        return self._others[key]

    def start_task(self) -> None:
        """Begin a task: which of its records are verified depends on no other task."""
        self._verification.start_task()

    def batches(self, raw: RawBatch, form: str) -> Iterator[Batch]:
        """Yield the sequences and rejects of consecutive records, in several batches where one would be too large.

        Only unrolled conversations are that much larger than what they were read from.

        Raises:
            DataError: as `batch`.
        """
        while len(raw):
            end = len(raw)
            while True:
                try:
                    made = self.batch(raw if end == len(raw) else raw.part(0, end), form)
                    break
                except UnrolledTooLargeError as error:
                    end = error.record - raw.first
            yield made
            raw = raw.part(end, len(raw))

    def batch(self, raw: RawBatch, form: str) -> Batch:
        """Return the sequences and rejects of consecutive records of one format.

        A record that raises anything unforeseen is rejected (see `containment`).

        Raises:
            DataError: the backend gave other ids than Hugging Face, or `--overlong error` met a sequence that is too
                long; the record is named.
            UnrolledTooLargeError: with `--rewritten-turns unroll`.
        """
        format_ = get(form)
        return contain(raw, lambda records: self._batch(records, format_))

    def _batch(self, raw: RawBatch, format_: RecordFormat) -> Batch:
        conversations = self._reading.read(raw, format_)
        rendered = self._rendering.render(conversations)
        tokenized = self._tokenization.tokenize(rendered)
        verified = self._verification.verify(raw, format_, conversations, rendered, tokenized)
        return self._truncation.truncate(verified)
