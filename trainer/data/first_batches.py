"""`--log-batches`: the first batches of a run as a page of HTML, made of the samples that the model is given.

Nothing is taken from the shards but the tokenizer: tokens and labels are put together again, so that a shift, a cut, a
pack or a mask that went wrong would be seen.

    tokens  7 8 5 0    labels 8 9 6 0    position_ids 0 1 0 0   ──▶   7 8 9 and 5 6
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.decoding import Decoder
from sft_shards.formats.masked_text import Decodes
from sft_shards.formats.pages.excerpt import Piece, excerpt
from sft_shards.formats.pages.page import clip, render
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.shards import Sample

CHARACTERS = 160_000
"""Characters of all samples together, at most."""
SAMPLES, CONVERSATIONS = 24, 12
"""Samples that are shown, in all batches together, and conversations of each."""


@dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A sample on the page."""

    item: int
    """Its number in the run."""
    source: str
    positions: int
    """Positions that hold a token."""
    trained: int
    conversations: tuple[tuple[Piece, ...], ...]
    hidden: int
    """Conversations that are not shown."""


@dataclass(frozen=True, kw_only=True)
class ShownBatch:
    """The samples of a step, or the first of them."""

    step: int
    """From 1."""
    positions: int
    trained: int
    samples: tuple[ShownSample, ...]
    more: int
    """Samples that are not shown."""


def conversations(sample: Sample, pad_id: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield ids, int[L], and unshifted loss mask, u8[L], of each conversation in a sample, without padding.

    The first token is no target, so its mask is 0.
    """
    starts = np.flatnonzero(sample["position_ids"] == 0)
    for begin, end in zip(starts, [*starts[1:], len(sample["tokens"])], strict=True):
        labels, mask = sample["labels"][begin:end], sample["loss_mask"][begin:end]
        filled = np.flatnonzero((labels != pad_id) | (mask == 1))
        if not len(filled):
            continue  # the padding behind the last conversation
        stop = int(filled[-1]) + 1
        ids = np.concatenate([sample["tokens"][begin : begin + 1], labels[:stop]]).astype(np.int64)
        yield ids, np.concatenate([np.zeros(1, dtype=np.uint8), mask[:stop]])


def page(
    samples: Any,
    *,
    batches: int,
    global_batch: int,
    seq_length: int,
    names: Sequence[str],
    directory: ShardDirectory,
) -> str:
    """Return the page.

    Args:
        samples: the training set, a map-style data set of `Sample`.
        batches: how many steps are shown.
        global_batch: samples of a step.
        seq_length: positions of a sample.
        names: of the sources, by the number that a sample carries.
        directory: one of the run, whose tokenizer decodes.

    Raises:
        DataError: it has no tokenizer that can be read.
    """
    decoder, pad_id = Decoder(directory), directory.manifest.tokenizer.pad_id
    each = max(1, min(global_batch, SAMPLES // batches))
    room = CHARACTERS // (each * batches)
    shown, filled, trained = [], 0, 0
    for step in range(batches):
        positions = carrying = 0
        kept = []
        for place in range(global_batch):
            item = step * global_batch + place
            sample: Mapping[str, Any] = samples[item]
            parts = list(conversations(sample, pad_id))  # type: ignore[arg-type]
            own = sum(len(ids) - 1 for ids, _ in parts), int(sample["loss_mask"].sum())
            positions, carrying = positions + own[0], carrying + own[1]
            if place < each:
                pieces = _pieces(parts, decoder, room)
                kept.append(
                    ShownSample(
                        item=item,
                        source=clip(names[int(sample["source"])], 80),
                        positions=own[0],
                        trained=own[1],
                        conversations=pieces,
                        hidden=len(parts) - len(pieces),
                    )
                )
        shown.append(
            ShownBatch(
                step=step + 1,
                positions=positions,
                trained=carrying,
                samples=tuple(kept),
                more=global_batch - len(kept),
            )
        )
        filled, trained = filled + positions, trained + carrying
    return render(
        "batches.html",
        title="The first batches of a run",
        batches=shown,
        seq_length=seq_length,
        global_batch=global_batch,
        fill=filled / (batches * global_batch * seq_length),
        trained=trained / max(1, filled),
    )


def _pieces(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.uint8]]], decoder: Decodes, room: int
) -> tuple[tuple[Piece, ...], ...]:
    first = parts[:CONVERSATIONS]
    return tuple(excerpt(ids, mask, decoder, characters=max(200, room // max(1, len(first)))) for ids, mask in first)
