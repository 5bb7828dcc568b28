"""The samples of a split as tensors of torch, for training loops that are not Megatron's.

    loader = torch.utils.data.DataLoader(sft_shards.open("shards")["train"].torch(seq_length=4096), batch_size=4)

They are the samples of `sft-train` with the same seed, in the order of the pack plan. Conversations that share a sample
are kept apart by `position_ids` alone, which start at 0 with each of them: the attention has to look at them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.cache_folder import cache_folder
from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.pack_plan import BATCHING, OVERLONG, Plan, make_plan
from sft_shards.trainer.data.shards import Reader

if TYPE_CHECKING:
    from torch import Tensor


class Packs:
    """A map-style data set of packed samples. `Conversations.torch` makes it, and says what the arguments are.

    Attributes:
        plan: which conversations stand in which sample, and counts of them.
    """

    def __init__(
        self,
        directory: ShardDirectory,
        split: str,
        *,
        seq_length: int,
        batching: str,
        overlong: str,
        seed: int,
        cache_dir: str | os.PathLike[str] | None,
    ) -> None:
        for name, value, known in (("batching", batching, BATCHING), ("overlong", overlong, OVERLONG)):
            if value not in known:
                raise UsageError(f"{name} {value!r}: unknown; {nearest(value, known)}")
        if seq_length < 1:
            raise UsageError(f"seq_length {seq_length}: a sample has at least 1 position")
        self.seq_length = seq_length
        self.plan: Plan = make_plan(
            directory.split(split),
            seq_length=seq_length,
            overlong=overlong,
            batching=batching,
            every_token=False,
            seed=seed,
            cache=Cache(cache_folder() if cache_dir is None else Path(cache_dir)),
        )
        pad_id = directory.manifest.tokenizer.pad_id
        self._reader = Reader(self.plan, seq_length=seq_length, pad_id=pad_id, every_token=False)
        self._path = directory.path
        self._options = {
            "seq_length": seq_length,
            "batching": batching,
            "overlong": overlong,
            "seed": seed,
            "cache_dir": cache_dir,
        }

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Give a sample of N positions, each tensor [N] and aligned: nothing is left to shift.

        `tokens` int64, what the model reads; `labels` int64, the next id within the conversation; `loss_mask` bool,
        whether the label carries loss; `position_ids` int64, from 0 in each conversation.
        """
        import torch

        number = range(len(self))[index]
        sample: dict[str, Any] = dict(self._reader[number])
        ids = {name: torch.from_numpy(sample[name].astype(np.int64)) for name in ("tokens", "labels", "position_ids")}
        return {**ids, "loss_mask": torch.from_numpy(sample["loss_mask"].astype(np.bool_))}

    def rows(self, index: int) -> list[int]:
        """List the rows of the split that stand in a sample, in their order there."""
        number = range(len(self))[index]
        bounds = self.plan.packs.bounds
        rows: list[int] = self.plan.packs.items[bounds[number] : bounds[number + 1]].tolist()
        return rows

    def __repr__(self) -> str:
        counts = self.plan.counts
        fill = counts.positions / max(1, len(self) * self.seq_length)
        return (
            f"Packs({self.plan.split.name}: {counts.conversations:,} conversations in {len(self):,} samples of "
            f"{self.seq_length:,}, {fill:.1%} full)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._path, self.plan.split.name, self._options)


def _again(path: Path, split: str, options: dict[str, Any]) -> Packs:
    return Packs(ShardDirectory(path), split, **options)
