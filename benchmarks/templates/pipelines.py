"""What the product makes of the conversations under one template: sequences with masks, or the reasons for rejects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.templates.conversations import Case
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.reference import ReferencePipeline
from sft_shards.preprocess.sources import JsonBatch
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One record's token ids and loss mask, or why it was left out."""

    ids: tuple[int, ...] = ()
    loss_mask: tuple[int, ...] = ()
    reason: str = ""
    detail: str = ""


class Pipelines:
    """The batch path and the reference path of a job with one tokenizer folder, both with Hugging Face's tokenizers.

    Raises:
        UsageError, DataError: the job would be refused.
    """

    def __init__(self, folder: Path) -> None:
        tokenizer = Tokenizer(str(folder))
        config = JobConfig(inputs=("x",), tokenizer=str(folder), verify_every=0)
        self._reference = ReferencePipeline(config, "tokenizer", tokenizer)
        self._batch = Pipeline(config, "tokenizer", tokenizer)

    def reference(self, cases: Sequence[Case]) -> list[Outcome]:
        """Return what the reference path makes of each conversation."""
        return _taken_apart(self._reference.batch(_raw(cases), "openai"), len(cases))

    def batch(self, cases: Sequence[Case]) -> list[Outcome]:
        """Return what the batch path makes of each conversation, all of them in one batch."""
        return _taken_apart(self._batch.batch(_raw(cases), "openai"), len(cases))


def _raw(cases: Sequence[Case]) -> JsonBatch:
    return JsonBatch.of_texts(0, [json.dumps(case.record).encode() for case in cases])


def _taken_apart(batch: Batch, count: int) -> list[Outcome]:
    out = [Outcome(reason="neither kept nor rejected")] * count
    for reject in batch.rejects:
        out[reject.record] = Outcome(reason=reject.reason, detail=reject.detail)
    at = 0
    for record, length in zip(batch.records.tolist(), batch.lengths.tolist(), strict=True):
        ids, mask = batch.ids[at : at + length].tolist(), batch.loss_mask[at : at + length].tolist()
        out[record] = Outcome(ids=tuple(ids), loss_mask=tuple(mask))
        at += length
    return out
