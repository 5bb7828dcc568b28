"""The tokenize stage: texts to token ids and loss masks.

    RenderedBatch ──▶ TokenizedBatch

The reference implementation takes Hugging Face's ids and offsets, one text at a time. The batch implementation takes
the ids of a backend and places them by the bytes that they stand for (see `masks`), those of the text in normal form
where the tokenizer normalizes (see `normalization`). It hands on to the reference texts with a control token that
somebody typed, texts whose normal form is doubtful, and texts whose bytes the tokens do not add up to. For the last
ones the ids must still be the same: if they are not, the job ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.preprocess.pipeline.batch import Notes, Reject, RenderedBatch, TokenizedBatch, sequence_keys
from sft_shards.preprocess.pipeline.masks import LocatedTokens, mask_from_offsets, masks_from_bytes
from sft_shards.preprocess.pipeline.normalization import NormalizedBatch, normalize, without_swallowed
from sft_shards.preprocess.pipeline.ragged import whole_records
from sft_shards.preprocess.pipeline.rendered_texts import text_strings
from sft_shards.preprocess.tokenizer.backends import Backend, TokenIds
from sft_shards.preprocess.tokenizer.byte_lengths import ByteLengths, byte_lengths, pack, unpack_lengths
from sft_shards.preprocess.tokenizer.offsets import OffsetEncoder, TokensWithOffsets
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

TOGETHER = 1 << 19
"""Characters of text that the reference implementation encodes at a time."""


class ReferenceTokenization:
    """Encodes with Hugging Face's tokenizers, and reads masks off their offsets.

    Args:
        control: the tokens that are text where somebody typed them.
        straddle: what becomes of a token that begins before a trained span and ends inside it: it carries loss
            (`train`), it does not (`skip`), or the text is cut there and both sides are encoded alone (`split`), as
            inference feeds them.

    Raises:
        UsageError: `split` with a tokenizer that puts something in front of every text it is given.
    """

    def __init__(self, tokenizer: Tokenizer, control: Collection[str], *, straddle: str) -> None:
        self._straddle = straddle
        self._encoder = OffsetEncoder(tokenizer, control)
        self._table = byte_lengths(tokenizer) if straddle != "split" else None
        if straddle == "split" and not tokenizer.keeps_cuts:
            raise UsageError(
                f"tokenizer {tokenizer.name}: puts a space in front of every text, so texts cannot be cut; "
                "use --straddle train or skip"
            )

    def tokenize(self, rendered: RenderedBatch) -> TokenizedBatch:
        """Encode every text; one that cannot be encoded as it should be is rejected."""
        texts = text_strings(rendered)
        splits = self._straddle == "split"
        whole = self._encode_whole([text for text, _, typed in texts if not typed and not splits])
        notes = dict(rendered.notes)
        rejected: dict[int, Reject] = {}
        rows: list[int] = []
        ids: list[NDArray[np.int32]] = []
        masks: list[NDArray[np.uint8]] = []
        straddling: list[int] = []
        for row, (text, spans, typed) in enumerate(texts):
            record = int(rendered.records[row])
            try:
                cuts = [start for start, _ in spans] if splits else []
                in_pieces = bool(typed) or splits
                tokens = self._encoder.encode_in_pieces(text, typed, cuts) if in_pieces else next(whole)
                if not tokens.ids:
                    raise RecordError("empty", "the conversation has no tokens")
            except RecordError as error:
                rejected.setdefault(record, Reject.of(record, error.kept()))
                notes.pop(record, None)
                continue
            offsets = np.asarray(tokens.offsets, dtype=np.int64)
            mask, count = mask_from_offsets(offsets, spans, train_straddling=self._straddle != "skip")
            rows.append(row)
            ids.append(np.asarray(tokens.ids, dtype=np.int32))
            masks.append(mask)
            straddling.append(count)
            if self._table is not None and not self._table.spells(ids[-1], text):
                notes[record] = (*notes.get(record, ()), "normalized_or_lossy")
        kept = np.asarray(rows, dtype=np.int64)
        tokenized = TokenizedBatch(
            records=rendered.records[kept],
            ids=np.concatenate([np.zeros(0, dtype=np.int32), *ids]),
            offsets=np.cumsum([0, *map(len, ids)], dtype=np.int64),
            loss_mask=np.concatenate([np.zeros(0, dtype=np.uint8), *masks]),
            trained=np.asarray([mask.sum() for mask in masks], dtype=np.int64),
            straddling=np.asarray(straddling, dtype=np.int64),
            digests=rendered.digests[kept] if len(rendered.digests) else rendered.digests,
            notes=notes,
            turns=rendered.turns and rendered.turns.select(kept),
        )
        return tokenized.without(list(rejected.values()), before=rendered.rejects)

    def _encode_whole(self, texts: Sequence[str]) -> Iterator[TokensWithOffsets]:
        """Encode texts as they are, some at a time: tokens with their offsets take hundreds of times a text's size."""
        begin = length = 0
        for end, text in enumerate(texts, 1):
            length += len(text)
            if length >= TOGETHER or end == len(texts):
                yield from self._encoder.encode(texts[begin:end])
                begin, length = end, 0


class BatchTokenization:
    """Encodes all texts of a batch with a backend, and reads masks off the bytes that tokens stand for.

    Args:
        backend: gives the ids.
        table: what each id stands for; None where ids stand for no fixed bytes, or texts are cut at spans, and
            so all texts go to the reference.
        reference: tokenizes what the batch implementation does not support, and judges ids that do not add up.
        train_straddling: whether tokens that straddle the start of a trained span carry loss.

    Attributes:
        fallbacks: how many texts went to the reference.
    """

    def __init__(
        self, backend: Backend, table: ByteLengths | None, reference: ReferenceTokenization, *, train_straddling: bool
    ) -> None:
        self._backend, self._table, self._reference = backend, table, reference
        self._train_straddling = train_straddling
        self.fallbacks = 0

    def tokenize(self, rendered: RenderedBatch) -> TokenizedBatch:
        """Encode every text; one that cannot be encoded as it should be is rejected.

        Raises:
            DataError: the backend gives other ids than Hugging Face; the record is named.
        """
        table = self._table
        if table is None:
            self.fallbacks += len(rendered)
            return self._reference.tokenize(rendered)
        normalized = _normalized(rendered, table)
        supported = _supported(rendered, normalized)
        if supported.all():
            return self._tokenize_supported(rendered, normalized, table)
        rest = rendered.select(np.flatnonzero(~supported))
        self.fallbacks += len(rest)
        judged = self._reference.tokenize(replace(rest, rejects=rendered.rejects))
        if not supported.any():
            return judged
        rows = np.flatnonzero(supported)
        tokenized = self._tokenize_supported(rendered.select(rows), _selected(normalized, rows), table)
        return TokenizedBatch.merge([tokenized, judged])

    def _tokenize_supported(
        self, rendered: RenderedBatch, normalized: NormalizedBatch, table: ByteLengths
    ) -> TokenizedBatch:
        texts = normalized.rendered
        tokens = encode(self._backend, texts, table)
        masks = masks_from_bytes(tokens, texts.spans, texts.span_owners, train_straddling=self._train_straddling)
        tokenized = TokenizedBatch(
            records=rendered.records,
            ids=tokens.ids,
            offsets=tokens.offsets,
            loss_mask=masks.loss_mask,
            trained=masks.trained,
            straddling=masks.straddling,
            digests=rendered.digests,
            rejects=rendered.rejects,
            notes=_with_changed(rendered.notes, rendered.records[normalized.changed & tokens.matches]),
            turns=rendered.turns,
        )
        if tokens.matches.all():
            return tokenized
        judging = whole_records(rendered.records, ~tokens.matches)
        rest = np.flatnonzero(judging)
        self.fallbacks += len(rest)
        judged = self._reference.tokenize(rendered.select(rest))
        require_same_ids(tokenized.select(rest), judged, self._backend.name)
        matching = replace(tokenized.select(np.flatnonzero(~judging)), rejects=rendered.rejects)
        return TokenizedBatch.merge([matching, judged])


def _normalized(rendered: RenderedBatch, table: ByteLengths) -> NormalizedBatch:
    """Return the texts as the tokenizer's own first step would make them."""
    if table.normalization is not None:
        return normalize(rendered, table.normalization)
    if table.swallowed is not None:
        return without_swallowed(rendered, table.swallowed)
    every = np.ones(len(rendered), dtype=bool)
    return NormalizedBatch(rendered=rendered, supported=every, changed=~every)


def _selected(normalized: NormalizedBatch, rows: NDArray[np.int64]) -> NormalizedBatch:
    """Return the texts at some positions, rising."""
    return NormalizedBatch(
        rendered=normalized.rendered.select(rows),
        supported=normalized.supported[rows],
        changed=normalized.changed[rows],
    )


def _supported(rendered: RenderedBatch, normalized: NormalizedBatch) -> NDArray[np.bool_]:
    """Return bool[n]: the texts that a backend may be given."""
    plain = (np.diff(rendered.typed_offsets) == 0) & (np.diff(rendered.text_offsets) > 0)
    return ~whole_records(rendered.records, ~(normalized.supported & plain))


def _with_changed(notes: Notes, records: NDArray[np.int64]) -> Notes:
    """Return notes with one more for each of some records, which may be there several times."""
    if not len(records):
        return notes
    out = dict(notes)
    for record in records.tolist():
        out[record] = (*out.get(record, ()), "normalized_or_lossy")
    return out


def encode(backend: Backend, rendered: RenderedBatch, table: ByteLengths) -> LocatedTokens:
    """Encode texts, of which none is empty, and find where each token stands.

    One long text costs a quarter less than hundreds of short ones, so all texts are encoded as one where that gives the
    same ids: where each begins with a control token, at which every tokenizer cuts a text before anything else.
    """
    if backend.prefers_joined and all(opening.startswith(table.openers) for opening in rendered.openings):
        joined = _encode_joined(backend, rendered, table)
        if joined is not None:
            return joined
    return locate(backend.encode(rendered.texts), rendered, table)


def _encode_joined(backend: Backend, rendered: RenderedBatch, table: ByteLengths) -> LocatedTokens | None:
    """Encode all texts as one; None where that is not certain to be the same.

    Texts "<s>ab" and "<s>c" as the tokens "<s>", "ab", "<s>", "c" have the positions [0, 3, 5, 8, 9]. The texts end at
    bytes 5 and 9, which are positions of tokens 2 and 4: the offsets are [0, 2, 4]. It is the same if every text begins
    where a token does, that token is a control token, and all bytes add up.
    """
    ids = backend.encode([rendered.joined]).ids
    sums = table.packed_sums(ids, np.zeros(1, dtype=np.int64))
    positions = unpack_lengths(sums)
    text_ends = rendered.text_offsets.astype(np.uint32)
    offsets = np.searchsorted(positions, text_ends).astype(np.int64)
    total = rendered.text.sum(dtype=np.uint32)  # wraps, as the sums in `packed` do
    same = offsets[-1] == len(ids) and sums[-1] == pack(text_ends[-1], total)
    if not same or not np.array_equal(positions[offsets], text_ends) or not table.control[ids[offsets[:-1]]].all():
        return None
    matches = np.ones(len(rendered), dtype=bool)
    return LocatedTokens(ids=ids, offsets=offsets, positions=positions, matches=matches)


def locate(tokens: TokenIds, rendered: RenderedBatch, table: ByteLengths) -> LocatedTokens:
    """Find where the tokens of texts stand that were encoded one by one, and whether they add up to the texts.

    Texts "ab" and "c" as one token each have the packed sums of lengths 0, 2, 3 and of values 0, 195, 294. The first
    token must add up to 2 and 97 + 98, the second to 1 and 99.
    """
    sums = table.packed_sums(tokens.ids, tokens.offsets[:-1])
    values = np.add.reduceat(rendered.text, rendered.text_offsets[:-1], dtype=np.uint64)
    expected = pack(np.diff(rendered.text_offsets).astype(np.uint64), values)
    matches = sums[tokens.offsets[1:]] - sums[tokens.offsets[:-1]] == expected
    return LocatedTokens(ids=tokens.ids, offsets=tokens.offsets, positions=unpack_lengths(sums), matches=matches)


def require_same_ids(got: TokenizedBatch, judged: TokenizedBatch, backend: str) -> None:
    """Compare the ids that a backend gave with those of the reference.

    Raises:
        DataError: a record has other ids, or the reference rejects it; the record is named.
    """
    expected = {key: row for row, key in enumerate(sequence_keys(judged.records))}
    for row, key in enumerate(sequence_keys(got.records)):
        record, ids = key[0], got.sequence(row)[0]
        if key not in expected:
            if len(ids):
                reason = next(reject for reject in judged.rejects if reject.record == record)
                raise disagreement(record, f"it should have been left out ({reason.reason}: {reason.detail})")
            continue
        right = judged.sequence(expected[key])[0]
        if not np.array_equal(right, ids):
            at = first_difference(right, ids)
            raise disagreement(record, f"{backend} gives other ids than Hugging Face from token {at} on")


def disagreement(record: int, problem: str) -> DataError:
    """Return the error for a record of which the batch path and the reference path make different things."""
    return DataError(f"record {record}: {problem}; run again with --tokenizer-engine hf, and report this")


def first_difference(one: NDArray[np.int32] | NDArray[np.uint8], other: NDArray[np.int32] | NDArray[np.uint8]) -> int:
    """Return the first position at which two arrays differ; [1, 2] and [1, 2, 3] differ at 2."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
