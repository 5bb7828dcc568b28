"""Questions with known answers from a shard directory: the rows as they were trained on, cut before each answer.

Nothing is rendered again: the prompt is the row's own ids up to a trained turn, the reference the ids of that turn.
Earlier turns hold the reference's answers, not the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory, vocabulary_hash
from sft_shards.trainer.chat.generation import ChatModel

FIRST = 8
"""Rows that are asked without a choice."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One trained turn of a row."""

    row: int
    turn: int
    """Among the trained turns of the row, from 1."""
    turns: int
    """Trained turns of the row."""
    prompt: tuple[int, ...]
    """Ids before the turn."""
    reference: tuple[int, ...]
    """Ids of the turn, its stop token included."""


def open_rows(shards: str, split: str, rows: str | None, chat: ChatModel) -> Iterator[Question]:
    """Every trained turn of some rows.

    Args:
        split: `train`, `valid` or `test`.
        rows: numbers and ranges, such as `0-3,17`; None: the first `FIRST`.

    Raises:
        UsageError: no such split or row, or `rows` is not of that form.
        DataError: the shards are damaged, have another vocabulary than the model, or a row has nothing to ask.
    """
    directory = ShardDirectory(shards)
    info = directory.manifest.tokenizer
    if vocabulary_hash(chat.tokenizer.get_vocab()) != info.vocab_sha256:
        raise DataError(
            f"{shards}: tokenized with {info.name}, whose vocabulary is not that of {chat.folder}; use shards made "
            "with the model's tokenizer"
        )
    opened = directory.split(split)
    rows = rows or f"0-{min(FIRST, len(opened)) - 1}"
    numbers = parse_rows(rows, len(opened), where=f"{Path(shards)}, split {split}")
    return (question for number in numbers for question in questions(number, *opened[number], shards))


def parse_rows(text: str, count: int, *, where: str) -> list[int]:
    """Row numbers from `0-3,17`: [0, 1, 2, 3, 17]; UsageError where one is outside 0..count-1."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--rows {text}: {part.strip()!r} is neither a row nor a range; write it like 0-3,17")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop >= count:
            raise UsageError(f"--rows {text}: {part.strip()} is outside rows 0-{count - 1} of {where}")
        numbers += range(start, stop + 1)
    return numbers


def questions(row: int, ids: NDArray[Any], mask: NDArray[np.uint8], shards: str) -> Iterator[Question]:
    """The trained turns of a row: a mask 0 0 1 1 0 1 has two, which start at 2 and 5.

    Args:
        ids: int[L].
        mask: u8[L], unshifted.
        shards: their directory, for messages.

    Raises:
        DataError: the first token is trained, so that nothing comes before it.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    spans = [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2) if start > 0]
    if not spans:
        raise DataError(
            f"{shards}: row {row} trains from its first token on, so there is nothing to ask; choose others"
        )
    for turn, (start, stop) in enumerate(spans, start=1):
        yield Question(
            row=row,
            turn=turn,
            turns=len(spans),
            prompt=tuple(ids[:start].tolist()),
            reference=tuple(ids[start:stop].tolist()),
        )
