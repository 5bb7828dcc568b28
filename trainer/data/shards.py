"""The shard directories of a run: opened, checked against each other, and read sample by sample."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.pack_plan import Plan

Sample = dict[str, Any]
"""`tokens`, `labels`, `position_ids` int32[N]; `loss_mask` uint8[N] (0 or 1, aligned with `labels`); `source` int64,
the number of the directory that all of it comes from."""
Pair = tuple[NDArray[Any], NDArray[np.uint8]]
"""Ids [L] and unshifted loss mask [L] of one conversation."""


def parse_shards(text: str) -> tuple[str, Fraction]:
    """The directory and the weight in `DIR[:WEIGHT]`; a directory whose own name ends so is taken as it is.

    Raises:
        UsageError: a weight of zero or below.
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
    """A name for each directory: the last part of its path, or as many as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts)) and len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(each[-depth:]) for each in parts]
    return [name if names.count(name) == 1 else f"{name}#{names[:n].count(name) + 1}" for n, name in enumerate(names)]


def open_shards(paths: Iterable[str]) -> list[ShardDirectory]:
    """Open the directories and check that they are of one vocabulary and hold something to train on.

    Raises:
        DataError: a directory that is not complete, another tokenizer's, without train split, or whose ids for EOS
            or padding are outside its vocabulary.
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
    """Reads the packs of a plan out of the memory maps."""

    def __init__(self, plan: Plan, *, seq_length: int, pad_id: int, every_token: bool, source: int = 0) -> None:
        self.plan = plan
        self.seq_length = seq_length
        self.pad_id = pad_id
        self.every_token = every_token
        self.source = np.int64(source)
        self._ramp = np.arange(seq_length, dtype=np.int32)

    def conversations(self, number: int) -> list[Pair]:
        """The conversations of pack `number`, whole."""
        bounds, split = self.plan.packs.bounds, self.plan.split
        return [split[row] for row in self.plan.packs.items[bounds[number] : bounds[number + 1]].tolist()]

    def sample(self, conversations: Iterable[Pair]) -> Sample:
        """Conversations as one sample; what one has beyond `seq_length` + 1 tokens is cut off."""
        size = self.seq_length
        tokens, labels = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
        loss_mask, position_ids = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.int32)
        parts = [(ids[: size + 1], mask[1 : size + 1]) for ids, mask in conversations]
        at = sum(len(mask) for _, mask in parts)
        if parts:  # whole columns at a time: a pack has many conversations, and each numpy call its price
            np.concatenate([ids[:-1] for ids, _ in parts], out=tokens[:at], casting="unsafe")
            np.concatenate([ids[1:] for ids, _ in parts], out=labels[:at], casting="unsafe")
            np.concatenate([mask for _, mask in parts], out=loss_mask[:at])
            np.concatenate([self._ramp[: len(mask)] for _, mask in parts], out=position_ids[:at])
        if self.every_token:
            loss_mask[:at] = 1
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
