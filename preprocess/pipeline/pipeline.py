"""Records all the way to sequences: conversation, rendering, ids and mask, split. What fails on the way is a reject.

There are two ways, and they give the same bytes. The careful way renders with Jinja and takes Hugging Face's ids and
offsets, one record at a time; it can do everything, and it is the judge. The fast way (`fast`) is for records that
are nothing but roles and texts. A sample of what went the fast way is done again with care, and a difference ends
the job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import TextOnlyConversations
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import DataError, RecordError
from sft_shards.formats.records import ColumnarFormat, RecordFormat, get
from sft_shards.formats.shards import SPLITS
from sft_shards.formats.templates import TOKENIZER, ChatTemplate, Rendering, Span, template_source
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch, Reject
from sft_shards.preprocess.pipeline.masks import Masked, masks
from sft_shards.preprocess.pipeline.read import read_plain
from sft_shards.preprocess.pipeline.reference import Encoded, Encoder
from sft_shards.preprocess.pipeline.render import Renderer, Texts
from sft_shards.preprocess.pipeline.tokenize import encode
from sft_shards.preprocess.pipeline.truncation import fit
from sft_shards.preprocess.sources import RawBatch
from sft_shards.preprocess.tokenizer.backends import Engine, Flat, HuggingFace
from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

ALWAYS_VERIFIED = 100
"""The first records of a task that go the fast way are all compared with the careful way."""


@dataclass(frozen=True, kw_only=True)
class Careful:
    """A sequence as the careful way gives it."""

    encoded: Encoded
    notes: tuple[str, ...]
    digest: bytes
    """16 bytes; zeros where nobody needs them."""


@dataclass(frozen=True, kw_only=True)
class Fast:
    """The records of a batch that were filled, encoded at once."""

    places: NDArray[np.int64]
    """int64[n], rising: places in the batch."""
    flat: Flat
    masked: Masked
    sound: NDArray[np.bool_]
    """bool[n]: the masks are right."""
    lengths: NDArray[np.int64]
    """int64[n]."""
    fits: NDArray[np.bool_]
    """bool[n]: nothing more is to be done."""
    digests: NDArray[np.uint8]
    """u8[n, 16], or u8[0, 16]."""

    def sequence(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Ids and mask of one."""
        here = slice(int(self.flat.bounds[number]), int(self.flat.bounds[number + 1]))
        return self.flat.ids[here], self.masked.loss_mask[here]


class Pipeline:
    """Turns the records of a task into batches.

    Args:
        engine: gives the ids on the fast way; None for Hugging Face's, with which nothing is left to verify.
    """

    def __init__(self, config: JobConfig, template: str, tokenizer: Tokenizer, engine: Engine | None = None) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.template = load_template(template, tokenizer, allow_control_tokens=config.allow_control_tokens)
        self.encoder = Encoder(tokenizer, straddle=config.straddle)
        self.engine = engine or HuggingFace(tokenizer)
        self._needs_digest = bool(config.valid_fraction or config.test_fraction or config.dedup)
        self._table = byte_lengths(tokenizer) if config.straddle != "split" else None
        composes = self._table is not None and self._table.composes
        self._renderer = Renderer(self.template, config.policy, composes=composes)
        self._verified = 0
        self._fields = config.fields

    def batch(self, records: RawBatch, form: str) -> Batch:
        """The sequences and rejects of consecutive records of one format.

        Raises:
            DataError: the fast way gave something else than the careful one; the record is named.
        """
        format_ = get(form)
        fast, fitting = None, np.zeros(0, dtype=np.int64)
        if self._table is not None and isinstance(format_, ColumnarFormat):
            texts, plain = self._renderer.render(read_plain(format_, records, self._fields))
            if len(plain.rows):
                fast = self._fast(plain, texts, records, format_)
                if len(plain.rows) == len(records) and fast.fits.all():
                    return self._whole(fast, records)
                fitting = fast.places[fast.fits]
        order = np.setdiff1d(np.arange(len(records)), fitting, assume_unique=True).tolist()
        found = dict(zip(order, self._careful(records.values(order), format_), strict=True))
        return self._mixed(fast, found, records)

    def _fast(
        self,
        plain: TextOnlyConversations,
        texts: Texts,
        records: RawBatch,
        format_: RecordFormat,
    ) -> Fast:
        """Encode what was filled. What is not sound, too long or without a target does not fit: it is for the careful
        way, which must get the same ids."""
        assert self._table is not None
        aligned = encode(self.engine, texts, self._table)
        masked = masks(aligned, texts, train_straddling=self.config.straddle != "skip")
        flat, lengths = aligned.flat, np.diff(aligned.flat.bounds)
        fits = aligned.sound & (lengths <= (self.config.max_length or lengths.max())) & (lengths > 0)
        if len(flat.ids):
            fits &= masked.trained > masked.loss_mask[np.minimum(flat.bounds[:-1], len(flat.ids) - 1)]
        digests = b"".join(plain.digests()) if self._needs_digest else b""
        fast = Fast(
            places=plain.rows,
            flat=flat,
            masked=masked,
            sound=aligned.sound,
            lengths=lengths,
            fits=fits,
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16),
        )
        sampled = self._sampled(records.numbers[fast.places])
        again = np.flatnonzero(sampled | ~fast.sound)
        judged = self._careful(records.values(fast.places[again].tolist()), format_) if len(again) else []
        for number, expected in zip(again.tolist(), judged, strict=True):
            self._verify(records.first + int(fast.places[number]), fast, number, expected)
        return fast

    def _sampled(self, records: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: the records that went the fast way and are done again: the first ones, and then a seeded share."""
        sampled = np.arange(self._verified, self._verified + len(records)) < ALWAYS_VERIFIED
        self._verified += int(sampled.sum())
        if self.config.verify_every:
            mixed = (records.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
            sampled |= mixed % np.uint64(self.config.verify_every) == 0
        return sampled

    def _verify(self, record: int, fast: Fast, number: int, expected: Careful | RecordError) -> None:
        """Compare one that went the fast way with what the careful way gave for its record."""
        ids, loss_mask = fast.sequence(number)
        problem = None
        if isinstance(expected, RecordError):
            problem = f"it should have been left out ({expected})"
        elif not np.array_equal(expected.encoded.ids, ids):
            at = _first_difference(expected.encoded.ids, ids)
            problem = f"{self.engine.name} gives other ids than Hugging Face from token {at} on"
        elif fast.sound[number] and not np.array_equal(expected.encoded.loss_mask, loss_mask):
            at = _first_difference(expected.encoded.loss_mask, loss_mask)
            problem = f"the mask differs from the one by offsets at token {at}"
        if problem:
            raise DataError(f"record {record}: {problem}; run again with --tokenizer-engine hf, and report this")

    def _careful(self, found: Iterable[Any], format_: RecordFormat) -> list[Careful | RecordError]:
        """The judge: Jinja, Hugging Face's ids, masks by offsets."""
        out: list[Careful | RecordError | None] = []
        rendered: list[tuple[Rendering, list[Span], Conversation]] = []
        for record in found:
            try:
                if isinstance(record, RecordError):
                    out.append(record)
                    continue
                conversation = format_.read(record, self._fields)
                rendering = self.template.render(conversation)
            except RecordError as error:
                out.append(error.kept())
                continue
            rendered.append((rendering, self.config.policy.spans(rendering, conversation), conversation))
            out.append(None)
        encoded = iter(self.encoder.encode([one[0] for one in rendered], [one[1] for one in rendered]))
        stream = iter(rendered)
        return [self._sequence(next(encoded), *next(stream)) if one is None else one for one in out]

    def _sequence(
        self, encoded: Encoded | RecordError, rendering: Rendering, _spans: list[Span], conversation: Conversation
    ) -> Careful | RecordError:
        if isinstance(encoded, RecordError):
            return encoded
        notes = [*rendering.notes]
        if rendering.typed:
            notes.append("typed_control_tokens")
        if self._table is not None and not self._table.spell(encoded.ids, rendering.text):
            notes.append("normalized_or_lossy")
        digest = conversation.digest() if self._needs_digest else bytes(16)
        return Careful(encoded=encoded, notes=tuple(notes), digest=digest)

    def _whole(self, fast: Fast, records: RawBatch) -> Batch:
        """A batch in which every record went the fast way, and fits."""
        straddling = int(fast.masked.straddling.sum())
        return Batch(
            records=records.numbers,
            splits=self._splits(fast.digests, len(records)),
            digests=fast.digests if self.config.dedup else fast.digests[:0],
            lengths=fast.lengths,
            ids=fast.flat.ids,
            loss_mask=fast.masked.loss_mask,
            trained=fast.masked.trained,
            rejects=(),
            notes=Counter({"straddling_tokens": straddling}) if straddling else Counter(),
        )

    def _mixed(self, fast: Fast | None, found: dict[int, Careful | RecordError], records: RawBatch) -> Batch:
        """Put what became of each record in order, cut what is too long, and count."""
        notes: Counter[str] = Counter()
        rejects: list[Reject] = []
        kept: list[tuple[int, Any, Any, Any]] = []
        if fast is not None:
            none = np.zeros(16, dtype=np.uint8)
            for number in np.flatnonzero(fast.fits):
                digest = fast.digests[number] if self._needs_digest else none
                kept.append((int(fast.places[number]), *fast.sequence(int(number)), digest))
            notes["straddling_tokens"] += int(fast.masked.straddling[fast.fits].sum())
        for at, outcome in sorted(found.items()):
            try:
                fitted = outcome if isinstance(outcome, RecordError) else self._fitted(outcome)
            except DataError as error:
                raise DataError(f"record {records.first + at}: {error}") from None
            if isinstance(fitted, RecordError):
                rejects.append(Reject(record=records.first + at, reason=fitted.reason, detail=fitted.detail))
                continue
            assert isinstance(outcome, Careful), "only those fit"
            encoded, cut = fitted
            kept.append((at, encoded.ids, encoded.loss_mask, np.frombuffer(outcome.digest, dtype=np.uint8)))
            notes.update(outcome.notes)
            notes["cut"] += cut
            notes["straddling_tokens"] += encoded.straddling
        kept.sort(key=lambda one: one[0])
        ids = [one[1] for one in kept]
        digests = np.asarray([one[3] for one in kept], dtype=np.uint8).reshape(-1, 16)
        return Batch(
            records=records.first + np.asarray([one[0] for one in kept], dtype=np.int64),
            splits=self._splits(digests, len(kept)),
            digests=digests if self.config.dedup else digests[:0],
            lengths=np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)),
            ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
            loss_mask=np.concatenate([one[2] for one in kept]) if ids else np.zeros(0, dtype=np.uint8),
            trained=np.asarray([one[2].sum() for one in kept], dtype=np.int64),
            rejects=rejects,
            notes=+notes,
        )

    def _fitted(self, found: Careful) -> tuple[Encoded, bool] | RecordError:
        try:
            return fit(found.encoded, self.config.max_length, self.config.overlong)
        except RecordError as error:
            return error.kept()

    def _splits(self, digests: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
        """u8[n], the split of each conversation by its content alone: it does not move when data is added."""
        valid, test = self.config.valid_fraction, self.config.test_fraction
        train = SPLITS.index("train")
        if not valid and not test:
            return np.full(count, train, dtype=np.uint8)
        share = digests[:, :8].copy().view(">u8").reshape(-1) / 2.0**64
        chosen = [share < valid, share < valid + test]
        return np.select(chosen, [SPLITS.index("valid"), SPLITS.index("test")], train).astype(np.uint8)


def _first_difference(one: Any, other: Any) -> int:
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


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
