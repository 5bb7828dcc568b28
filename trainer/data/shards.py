"""The shard directories of a run: named, opened, checked against each other, and read sample by sample.

Every sample is made here, so this file decides which label belongs to which position:

- A stored conversation of L tokens has L - 1 positions. Position p sees tokens 0..p, and its label is token p + 1.
- The stored loss mask is unshifted: entry i says whether token i, as a target, carries loss. So labels and mask shift
  together, `labels = tokens[1:]` and `loss_mask = mask[1:]`. Megatron shifts nothing.
- The positions of a conversation end at its last label, so no label in a pack belongs to the next conversation.
- `position_ids` start at 0 with every conversation, and again with the padding behind the last one: they alone say
  where a conversation ends.

A pack of (7 8 9, mask 0 1 1) and (5 6, mask 0 1) with seq_length 4 and padding id 0:

    tokens        7 8 5 0
    labels        8 9 6 0
    loss_mask     1 1 1 0
    position_ids  0 1 0 0

With context parallelism each conversation takes a multiple of some number of positions (see `pack_plan`). The padding
in the gap behind it belongs to its segment, so position_ids go on. The same with multiples of 2 and seq_length 6:

    tokens        7 8 5 0 0 0
    labels        8 9 6 0 0 0
    loss_mask     1 1 1 0 0 0
    position_ids  0 1 0 1 0 1

A sample takes 4 + 4 + 1 + 4 bytes a position, because it is copied between processes and to the GPU, where the forward
step widens it.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.pack_plan import Plan

Pair = tuple[NDArray[Any], NDArray[np.uint8]]
"""Token ids [L] and unshifted loss mask [L] of one conversation."""


class Sample(TypedDict):
    """One training sample of N positions; a dictionary, because torch collates dictionaries into batches."""

    tokens: NDArray[np.int32]
    """int32[N]: ids that the model reads."""
    labels: NDArray[np.int32]
    """int32[N]: the next id within the conversation."""
    loss_mask: NDArray[np.uint8]
    """uint8[N], 0 or 1, aligned with `labels`: whether the label carries loss."""
    position_ids: NDArray[np.int32]
    """int32[N]: position within the conversation and the gap behind it, from 0."""
    source: np.int64
    """Number of the mixture's source that the whole sample comes from."""


def parse_shards(text: str) -> tuple[str, Fraction]:
    """Split `DIR[:WEIGHT]` into the directory and its weight (1 if there is none).

    A directory whose own name ends in a colon and a number is taken as it is.

    Raises:
        UsageError: the weight is not above 0.
    """
    directory, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, Fraction(1)
    try:
        value = Fraction(weight)
    except (ValueError, ZeroDivisionError):
        return text, Fraction(1)
    if value <= 0:
        raise UsageError(f"--shards {text}: a weight is above 0; leave the directory out to give it none")
    return directory, value


def short_names(paths: Iterable[Path]) -> list[str]:
    """Return a name for each directory: the last part of its path, or as many parts as tell them apart.

    `x/a` and `y/b` are `a` and `b`; `x/a` and `y/a` keep both parts; a directory that is named twice is `a#1`, `a#2`.
    """
    parts = [path.absolute().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts)) and len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(each[-depth:]) for each in parts]
    return [name if names.count(name) == 1 else f"{name}#{names[:n].count(name) + 1}" for n, name in enumerate(names)]


def open_shards(paths: Iterable[str]) -> list[ShardDirectory]:
    """Open the directories and check that they share one vocabulary and have a train split.

    Raises:
        DataError: a directory is incomplete, was tokenized with another vocabulary than the first, has nothing to
            train on, or has an EOS or padding id outside its vocabulary.
    """
    directories = [ShardDirectory(path) for path in paths]
    first = directories[0]
    for directory in directories:
        info = directory.manifest.tokenizer
        for name, value in (("EOS", info.eos_id), ("padding", info.pad_id)):
            if not 0 <= value < info.vocab_size:
                raise DataError(
                    f"{directory.path}: the {name} id {value} is outside its vocabulary of {info.vocab_size}; "
                    "make the shards again"
                )
        if info.vocab_sha256 != first.manifest.tokenizer.vocab_sha256:
            raise DataError(
                f"{directory.path}: tokenized with {info.name}, {first.path} with {first.manifest.tokenizer.name}, and "
                "their vocabularies differ; tokenize both with the tokenizer of the model"
            )
        if "train" not in directory.manifest.splits or not directory.manifest.splits["train"].sequences:
            raise DataError(f"{directory.path}: its train split is empty; nothing to train on")
    return directories


class Reader:
    """Makes samples of the packs of a plan, from the memory-mapped shards."""

    def __init__(self, plan: Plan, *, seq_length: int, pad_id: int, every_token: bool, source: int = 0) -> None:
        self.plan = plan
        self.seq_length = seq_length
        self.pad_id = pad_id
        self.every_token = every_token
        self.source = np.int64(source)
        self._ramp = np.arange(seq_length, dtype=np.int32)
        self._padding = np.full(plan.multiple, pad_id, dtype=np.int32)
        self._untrained = np.zeros(plan.multiple, dtype=np.uint8)

    def conversations(self, number: int) -> list[Pair]:
        """Return the conversations of pack `number`, uncut."""
        bounds, split = self.plan.packs.bounds, self.plan.split
        return [split[row] for row in self.plan.packs.items[bounds[number] : bounds[number + 1]].tolist()]

    def sample(self, conversations: Iterable[Pair]) -> Sample:
        """Return one sample of these conversations; each is cut off after `seq_length` + 1 tokens."""
        size = self.seq_length
        tokens, labels = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
        loss_mask, position_ids = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.int32)
        parts = [(ids[: size + 1], mask[1 : size + 1]) for ids, mask in conversations]
        if self.every_token:
            parts = [(ids, np.ones_like(mask)) for ids, mask in parts]
        gaps = [-len(mask) % self.plan.multiple for _, mask in parts]
        at = sum(len(mask) for _, mask in parts) + sum(gaps)
        if parts:  # one numpy call for each array, not for each conversation: a pack has many
            padding, untrained = self._padding, self._untrained
            np.concatenate(_apart([ids[:-1] for ids, _ in parts], gaps, padding), out=tokens[:at], casting="unsafe")
            np.concatenate(_apart([ids[1:] for ids, _ in parts], gaps, padding), out=labels[:at], casting="unsafe")
            np.concatenate(_apart([mask for _, mask in parts], gaps, untrained), out=loss_mask[:at])
            ramps = [self._ramp[: len(mask) + gap] for (_, mask), gap in zip(parts, gaps, strict=True)]
            np.concatenate(ramps, out=position_ids[:at])
        tokens[at:] = self.pad_id
        labels[at:] = self.pad_id
        loss_mask[at:] = 0
        position_ids[at:] = self._ramp[: size - at]
        return {
            "tokens": tokens,
            "labels": labels,
            "loss_mask": loss_mask,
            "position_ids": position_ids,
            "source": self.source,
        }

    def __getitem__(self, number: int) -> Sample:
        return self.sample(self.conversations(number))


def _apart(pieces: list[NDArray[Any]], gaps: list[int], filler: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the pieces with as much of `filler` behind each as its gap is wide."""
    if not any(gaps):
        return pieces
    return [part for piece, gap in zip(pieces, gaps, strict=True) for part in (piece, filler[:gap])]
