"""One kind of training: which data sets and which forward step Megatron is given. A new kind overrides what differs.

    class DpoStage(Stage):
        def train_samples(self, count): ...         # a map-style data set of its own
        def forward_step(self): ...                 # and the step that reads its batches

Everything around it (checks, mixture and plans, schedule, launch, checkpoints) stays as it is.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.mixture import Mixture, Source
from sft_shards.trainer.data.pack_plan import Plan, make_plan
from sft_shards.trainer.data.samples import EvalSamples, TrainSamples
from sft_shards.trainer.data.shards import Reader
from sft_shards.trainer.isolation.choose import Isolation
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore.forward_step import ForwardStep
from sft_shards.trainer.model import provider
from sft_shards.trainer.parallel_layout import ParallelLayout


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a stage is made from; everything in it has been checked."""

    job: Job
    args: Namespace
    """Megatron's flags as parsed, not yet validated by Megatron."""
    layout: ParallelLayout
    isolation: Isolation
    directories: tuple[tuple[str, Fraction, ShardDirectory], ...]
    """Name, weight and shards; all of one vocabulary."""
    cache: Cache


class Stage:
    """Supervised fine-tuning: packed or padded conversations, loss on the tokens that the mask trains."""

    every_token = False
    """Loss on every token, whatever the mask says."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.train = self.mixture("train")
        self.valid = self.mixture("valid")
        if self.train is None or not self.train.counts.conversations:
            stored = self.train.counts.stored if self.train else 0
            raise DataError(
                f"{', '.join(setup.job.shards)}: none of {stored} conversations has a trained token within "
                f"--seq-length {setup.layout.seq_length} (--overlong {setup.job.overlong}); raise --seq-length"
            )

    def mixture(self, split: str) -> Mixture | None:
        """The directories that have something in a split; None where none has."""
        sources = []
        for name, weight, directory in self.setup.directories:
            if split not in directory.manifest.splits or not directory.manifest.splits[split].sequences:
                continue
            plan = make_plan(
                directory.split(split),
                seq_length=self.setup.layout.seq_length,
                overlong=self.setup.job.overlong,
                batching=self.setup.job.batching,
                every_token=self.every_token,
                seed=self.setup.args.seed,
                cache=self.setup.cache,
            )
            sources.append(Source(name=name, weight=weight, plan=plan))
        return Mixture(sources, seed=self.setup.args.seed) if sources else None

    def samples(self, epochs: Fraction) -> int:
        """Training samples in so many epochs."""
        assert self.train is not None
        return self.train.samples(epochs)

    def valid_samples(self) -> int:
        """Samples in one pass over all validation splits."""
        return sum(len(source.plan) for source in self.valid.sources) if self.valid else 0

    def train_samples(self, count: int) -> Any:
        """The training set: map-style, item i a pure function of i, `count` items."""
        assert self.train is not None
        readers = [self.reader(source.plan, number) for number, source in enumerate(self.train.sources)]
        return TrainSamples(self.train, readers, count=count)

    def eval_samples(self, *, period: int, count: int) -> Any:
        """The validation set: `count` items that repeat after `period`."""
        assert self.valid is not None
        readers = [self.reader(source.plan, number) for number, source in enumerate(self.valid.sources)]
        return EvalSamples(readers, seed=self.setup.args.seed, period=period, count=count)

    def reader(self, plan: Plan, source: int) -> Reader:
        """What reads a plan's samples."""
        return Reader(
            plan,
            seq_length=self.setup.layout.seq_length,
            pad_id=self.setup.directories[0][2].manifest.tokenizer.pad_id,
            every_token=self.every_token,
            source=source,
        )

    def forward_step(self) -> Callable[..., Any]:
        """Megatron's forward_step_func."""
        names = tuple(source.name for source in self.valid.sources) if self.valid else ()
        return ForwardStep(isolation=self.setup.isolation.kind, sources=names if len(names) > 1 else ())

    def model_provider(self) -> Callable[..., Any]:
        """Megatron's model_provider."""
        return provider.model_provider


class PretrainStage(Stage):
    """Continued pretraining: the same shards, loss on every token."""

    every_token = True
