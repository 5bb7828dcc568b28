"""`preview`: records rendered and tokenized as a job would, with their masks, without a job.

It takes the pipeline of a job over a few records, so what is shown is what would be written, rejects with their reasons
included. Trying a template costs the time of loading the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.masked_text import masked_spans
from sft_shards.formats.reasons import NOTES, REASONS
from sft_shards.formats.terminal import UNLIMITED, printable, quoted
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.directories.masked_lines import as_object, coloured, token_lines
from sft_shards.preprocess.directories.tables import folded
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.preview import shortened
from sft_shards.preprocess.sources import RawBatch, Source, sample
from sft_shards.preprocess.tasks.plan import chosen_template, planned_sources
from sft_shards.preprocess.tasks.template_file import planned_config
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RenderedRecord:
    """What would become of one record."""

    source: str
    record: int
    format: str
    sequences: tuple[tuple[NDArray[Any], NDArray[np.uint8]], ...]
    """Ids, int[L], and unshifted loss mask, u8[L], of each sequence; none where it is left out."""
    reason: str
    """Why it is left out; "" where it is not."""
    detail: str
    notes: tuple[str, ...]
    """What is noted of it, by the names of `NOTES`."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Records as they would be trained."""

    template: str
    tokenizer: Tokenizer
    records: tuple[RenderedRecord, ...]


def preview(
    config: JobConfig, template_source: str | None, *, count: int, first: int = 0, cache: bool = True
) -> Preview:
    """Render records of every source, in turn.

    Args:
        template_source: text of the template file, where `--template` names one.
        count: records in all.
        first: number of the first record of each source.
        cache: whether the cache folder may be used.

    Raises:
        UsageError: an input, the tokenizer or the template cannot be used, or no source has so many records.
        DataError: an input is damaged, or `--overlong error` met a sequence that is too long.
    """
    sources = planned_sources(config)
    tokenizer = Tokenizer.configured(config, cache=cache)
    config = replace(planned_config(config, template_source), verify_every=0)
    formats = {source.format for source in sources}
    template = config.template if template_source else chosen_template(config, tokenizer, formats)
    pipeline = Pipeline(config, template, tokenizer, source=template_source)
    each = -(-count // len(sources))
    samples = [_numbered(source, first, each, config.max_record_bytes) for source in sources[:count]]
    turns = chain.from_iterable(zip_longest(*samples))
    records = [_rendered(pipeline, *one) for one in islice(filter(None, turns), count)]
    if not records:
        raise UsageError(f"--record {first}: no input has so many records")
    return Preview(template=template, tokenizer=tokenizer, records=tuple(records))


def _numbered(source: Source, first: int, count: int, most: int) -> list[tuple[Source, int, Any | RecordError]]:
    return [(source, number, record) for number, record in sample(source, first + count, most)[first:]]


def _rendered(pipeline: Pipeline, source: Source, number: int, record: Any | RecordError) -> RenderedRecord:
    batch = pipeline.of(source.options).batch(RawBatch(number, [record]), source.format)
    reject = next(iter(batch.rejects), None)
    return RenderedRecord(
        source=source.path,
        record=number,
        format=source.format,
        sequences=tuple(batch.sequences()),
        reason=reject.reason if reject else "",
        detail=reject.detail if reject else "",
        notes=tuple(name for name, noted in batch.notes.items() if noted),
    )


def as_dicts(found: Preview) -> Iterator[dict[str, Any]]:
    """Give an object for each record, as `--json` prints them."""
    for one in found.records:
        sequences = [as_object(ids, mask, found.tokenizer) for ids, mask in one.sequences]
        reject = {"reason": one.reason, "detail": one.detail} if one.reason else {}
        head = {"source": one.source, "record": one.record, "format": one.format, "template": found.template}
        yield {**head, "sequences": sequences, **reject, "notes": list(one.notes)}


def lines(found: Preview, *, colour: bool, tokens: bool, full: bool, width: int = UNLIMITED) -> Iterator[str]:
    """Give the records in lines for people.

    Args:
        tokens: a line for each token in place of the text.
        full: show long spans whole.
        width: columns of the terminal.
    """
    for one in found.records:
        total = sum(len(ids) for ids, _ in one.sequences)
        trained = sum(int(mask.sum()) for _, mask in one.sequences)
        what = f"{total:,} tokens, {trained:,} carry loss"
        if one.reason:
            what = f"LEFT OUT, {one.reason}: {one.detail}"
        head = f"record {one.record} of {one.source} ({one.format}, template {found.template}): {what}"
        for line in folded(printable(head), width):
            yield click.style(line, bold=True, fg="red" if one.reason else None) if colour else line
        if one.reason in REASONS:
            yield from folded(f"  {REASONS[one.reason].meaning}; {REASONS[one.reason].remedy}", width)
        for name in one.notes:
            yield from folded(f"  noted: {NOTES.get(name, name)}", width)
        for ids, mask in one.sequences:
            if tokens:
                yield from token_lines(ids, mask, found.tokenizer, colour=colour)
                continue
            spans = masked_spans(ids, mask, found.tokenizer)
            yield quoted(coloured(spans if full else [shortened(span) for span in spans], colour=colour))


def dumped(found: Preview) -> Sequence[str]:
    """Give a line of JSON for each record."""
    return [json.dumps(one, ensure_ascii=False) for one in as_dicts(found)]
