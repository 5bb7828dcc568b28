"""What a job prints when it begins: what was found, which backend gives the ids, and one record with its loss mask.

A wrong mask is seen before anything is written, and not after a night.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.formats.masked_text import MaskedSpan, masked_spans
from sft_shards.formats.terminal import printable, quoted
from sft_shards.preprocess.directories.masked_lines import coloured
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.sources import PartReader, RawBatch, sample
from sft_shards.preprocess.tasks.plan import Plan
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

TRIED = 20
"""Records of the first file that are tried; the first one that becomes a sequence is shown."""
ESTIMATED, PLACES = 200, 8
"""Records from which the cost of unrolling is estimated, and places of the input where they stand, at most."""
ENOUGH = 100_000
"""Tokens of conversations, unrolled or not, after which the estimate is good enough. Those of their histories do not
count: one long conversation has more of these than all others, and would end the sample."""
CHARACTERS = 400
"""Characters of a span that are shown; a longer one is cut in its middle."""


def announcement(plan: Plan, tokenizer: Tokenizer, *, colour: bool) -> Iterator[str]:
    """Give the lines: the template, the backend, and the first record with its loss mask.

    Args:
        colour: show what carries loss in green; otherwise between ⟦ ⟧.
    """
    given = ", ".join(f"{name}={json.dumps(value)}" for name, value in plan.config.template_arg.items())
    yield printable(f"template {plan.template}{f' with {given}' if given else ''}; ids by {plan.engine_check}")
    whole = Pipeline(plan.config, plan.template, tokenizer, source=plan.template_source)
    source = plan.sources[0]
    pipeline = whole.of(source.options)
    for number, record in sample(source, TRIED, plan.config.max_record_bytes):
        if isinstance(record, RecordError):
            continue
        try:
            batch = pipeline.batch(RawBatch(number, [record]), source.format)
        except DataError:
            continue  # it will end the job, and the task that meets it says where
        if len(batch.lengths):
            trained = int(batch.loss_mask.sum())
            yield printable(f"record {number} of {source.path}: {len(batch.ids):,} tokens, {trained:,} carry loss")
            for ids, mask in batch.sequences():
                spans = masked_spans(ids, mask, tokenizer)
                yield quoted(coloured([shortened(span) for span in spans], colour=colour))
            break
    if plan.config.rewritten_turns == "unroll":
        yield _unrolling(plan, whole)


def _unrolling(plan: Plan, pipeline: Pipeline) -> str:
    """Say what unrolling costs, estimated from records at places all over the input."""
    count = min(PLACES, len(plan.tasks))
    places = [plan.tasks[at * len(plan.tasks) // count] for at in range(count)]
    records, weight, share = 0, 0, 0.0
    for task in places:
        own, tokens, more = pipeline.of(task.source.options), 0, 0
        with suppress(DataError):  # it will end the job, and the task that meets it says where
            reader = PartReader(task.source, task.part, plan.config.max_record_bytes)
            for raw in islice(chain.from_iterable(reader.batches()), ESTIMATED // count):
                if isinstance(raw[1], RecordError):
                    continue
                batch = own.batch(RawBatch(raw[0], [raw[1]]), task.source.format)
                records += 1
                tokens += len(batch.ids) - batch.notes["unrolled_tokens"]
                more += batch.notes["unrolled_tokens"]
                if tokens > ENOUGH // count:
                    break
        if tokens:
            size = max(task.part.end - task.part.begin, 1)
            share += size * more / tokens
            weight += size
    return (
        f"unrolled: about {share / max(weight, 1):,.0%} more tokens, estimated from {records:,} records at {count} "
        f"{'places' if count > 1 else 'place'} of the input"
    )


def shortened(part: MaskedSpan) -> MaskedSpan:
    """Return a span whose text is at most about `CHARACTERS` long, cut in its middle."""
    if len(part.text) <= CHARACTERS:
        return part
    half = CHARACTERS // 2
    text = f"{part.text[:half]} … {len(part.text) - 2 * half:,} characters … {part.text[-half:]}"
    return MaskedSpan(text=text, trained=part.trained, tokens=part.tokens)
