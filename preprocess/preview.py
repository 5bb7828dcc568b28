"""What a job says when it begins: what was found, what gives the ids, and one record in colour.

What carries loss is seen before anything is written, and not after a night.
"""

from __future__ import annotations

from collections.abc import Iterator

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.directories.show import Stretch, coloured, stretches
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.sources import RawBatch, sample
from sft_shards.preprocess.tasks.plan import Plan
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

TRIED = 20
"""Records of the first file, of which the first that becomes a sequence is shown."""
CHARACTERS = 400
"""A stretch that is longer is cut in the middle."""


def announcement(plan: Plan, tokenizer: Tokenizer, *, colour: bool) -> Iterator[str]:
    """Lines: each source with its format, the engine, and the first record as the model will see it, trained parts in
    green or between ⟦ ⟧."""
    for source in plan.sources:
        yield f"{source.path}: {source.format} ({source.kind})"
    yield f"template {plan.template}; ids by {plan.engine_check}"
    pipeline = Pipeline(plan.config, plan.template, tokenizer)
    source = plan.sources[0]
    for number, record in sample(source, TRIED):
        if isinstance(record, RecordError):
            continue
        try:
            batch = pipeline.batch(RawBatch(number, [record]), source.format)
        except DataError:
            continue  # it will end the job; the task that meets it says where it stands
        if len(batch.lengths):
            trained = int(batch.loss_mask.sum())
            yield f"record {number} of {source.path}: {len(batch.ids):,} tokens, {trained:,} carry loss"
            parts = stretches(batch.ids, batch.loss_mask, tokenizer)
            yield coloured([_shortened(part) for part in parts], colour=colour)
            return


def _shortened(part: Stretch) -> Stretch:
    if len(part.text) <= CHARACTERS:
        return part
    half = CHARACTERS // 2
    text = f"{part.text[:half]} … {len(part.text) - 2 * half:,} characters … {part.text[-half:]}"
    return Stretch(text=text, trained=part.trained, tokens=part.tokens)
