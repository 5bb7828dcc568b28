"""A stage is one kind of training: the data sets, the model and the forward step that Megatron is given.

    class DpoStage(Stage):
        def train_samples(self, count): ...         # a map-style data set
        def forward_step(self): ...                 # the step that reads its batches

A new kind overrides what differs. Checks, mixture, pack plans, schedule, launch and checkpoints stay as they are.

Part of the plugin surface: other packages may import what `__all__` names, and register a subclass of `Stage` by the
entry point group `sft_shards.stages` (see `sft_shards.trainer.stage_registry`).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory, Split
from sft_shards.trainer.data.balance import BalancedSamples, CostedSamples, CostModel, deal, waiting
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.mixture import Mixture, Source
from sft_shards.trainer.data.pack_plan import Plan, make_plan
from sft_shards.trainer.data.samples import EvalSamples, TrainSamples
from sft_shards.trainer.data.shards import Reader
from sft_shards.trainer.isolation.choose import Isolation
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore.training_log import Meter
from sft_shards.trainer.model import provider
from sft_shards.trainer.parallel_layout import ParallelLayout

__all__ = ["PretrainStage", "Setup", "Stage"]

SAMPLES_OF_AN_ESTIMATE = 4096
"""Training samples, of the first steps, whose costs say how long ranks wait for each other."""

LARGEST_EPOCH = 1 << 31
"""Samples that an epoch does not reach: their order takes 8 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The inputs of a stage, all of them checked."""

    job: Job
    args: Namespace
    """Megatron's parsed flags, which Megatron has not validated yet."""
    layout: ParallelLayout
    """Process counts, batch sizes and the sequence length."""
    isolation: Isolation
    """How conversations that share a sample are kept from attending to each other."""
    directories: tuple[tuple[str, Fraction, ShardDirectory], ...]
    """Short name, epochs per epoch of the mixture, and shards of each directory; all have one vocabulary."""
    cache: Cache
    """Where selections and pack plans are kept."""


class Stage:
    """Supervised fine-tuning: packed or padded conversations, with loss where the stored mask is 1."""

    every_token = False
    """Whether every token carries loss, whatever the stored mask says."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.train = self.mixture("train")
        self.valid = self.mixture(setup.job.evaluate or "valid")
        if self.train is None or not self.train.counts.conversations:
            stored = self.train.counts.stored if self.train else 0
            raise DataError(
                f"{', '.join(setup.job.shards)}: none of {stored} conversations has a trained token within "
                f"--seq-length {setup.layout.seq_length} (--overlong {setup.job.overlong}); raise --seq-length"
            )
        if not 1 <= (samples := self.train.samples(1)) < LARGEST_EPOCH:
            count = f"{LARGEST_EPOCH:,} samples or more" if samples else "no sample"
            raise UsageError(
                f"--shards {', '.join(setup.job.shards)}: with these weights an epoch of the mixture has {count}. "
                "A weight is epochs per epoch of the mixture, not a share"
            )

    @cached_property
    def meter(self) -> Meter:
        """What the forward step counts its trained tokens with."""
        return Meter()

    def mixture(self, split: str) -> Mixture | None:
        """Return the mixture of all directories with conversations in `split`; None if there are none.

        A directory whose sources have weights is several sources of the training mixture, one for each weight.
        Evaluation reads all sequences once, and knows no weights.
        """
        sources = []
        for name, weight, directory in self.setup.directories:
            if split not in directory.manifest.splits or not directory.manifest.splits[split].sequences:
                continue
            whole = directory.split(split)
            if self.setup.job.evaluate:
                sources.append(Source(name=name, weight=weight, plan=self._plan(whole)))
                continue
            parts = directory.by_weight(whole)
            for part in parts:
                first, *others = part.sources
                files = f"{first} and {len(others)} more" if others else first
                own = name if len(parts) == 1 else f"{name}: {files}"
                sources.append(Source(name=own, weight=weight * part.weight, plan=self._plan(part.split)))
        return Mixture(sources, seed=self.setup.args.seed) if sources else None

    def _plan(self, split: Split) -> Plan:
        """Return the pack plan of a split, or of a part of it, for this run."""
        return make_plan(
            split,
            seq_length=self.setup.layout.seq_length,
            overlong=self.setup.job.overlong,
            batching=self.setup.job.batching,
            every_token=self.every_token,
            seed=self.setup.args.seed,
            cache=self.setup.cache,
            multiple=self.setup.layout.multiple,
        )

    def samples(self, epochs: Fraction) -> int:
        """Return the number of training samples in `epochs` epochs of the mixture."""
        assert self.train is not None
        return self.train.samples(epochs)

    def valid_samples(self) -> int:
        """Return the number of samples in one pass over all validation splits."""
        return sum(len(source.plan) for source in self.valid.sources) if self.valid else 0

    def train_samples(self, count: int) -> Any:
        """Return the training set: a map-style data set of `count` items, where item i is a pure function of i.

        Megatron resumes by counting consumed samples, so an item must not depend on what was read before.
        """
        assert self.train is not None
        readers = [self.reader(source.plan, number) for number, source in enumerate(self.train.sources)]
        return TrainSamples(self.train, readers, count=count, costs=self.costs if self.balances else ())

    @property
    def balances(self) -> bool:
        """Whether samples are dealt by cost, to data-parallel ranks and to the micro-batches of pipeline stages.

        Not with one process for both, a growing batch size, or padded samples.
        """
        layout, packed = self.setup.layout, self.setup.isolation.packed
        several = layout.data * layout.pipeline > 1 and not self.setup.args.rampup_batch_size
        return packed and several and not self.setup.job.no_balance

    @cached_property
    def costs(self) -> list[NDArray[np.int64]]:
        """The estimated cost of each pack, int64[packs], by source of the training mixture."""
        assert self.train is not None
        model, size = cost_model(self.setup.args), self.setup.layout.seq_length
        return [model.of(size, source.plan.squares(size)) for source in self.train.sources]

    def balanced(self, samples: Any, *, consumed: int) -> Any:
        """Return a training set whose items are dealt to ranks by their cost, where that makes a step faster.

        It is left as it is if samples are not balanced, or have no `cost`.

        Args:
            samples: what `train_samples` returned.
            consumed: items that earlier parts of the run consumed.
        """
        if not self.balances or not isinstance(samples, CostedSamples):
            return samples
        layout = self.setup.layout
        return BalancedSamples(
            samples, batch=layout.global_batch, ranks=layout.data, rows=layout.micro_batch, consumed=consumed
        )

    def waiting(self) -> tuple[float, float] | None:
        """Return the shares of all ranks' time that go in waiting, in the mixture's order and balanced.

        They are estimated from the first global batches of the run. None: samples are not balanced, or to one rank.
        """
        layout = self.setup.layout
        if not self.balances or layout.data == 1:
            return None
        batches = max(1, SAMPLES_OF_AN_ESTIMATE // layout.global_batch)
        samples = self.train_samples(batches * layout.global_batch)
        if not isinstance(samples, CostedSamples):
            return None
        items = range(len(samples))
        costs = np.asarray([samples.cost(item) for item in items], dtype=np.int64).reshape(batches, -1)
        ranks, rows = layout.data, layout.micro_batch
        dealt = [batch[deal(batch, ranks=ranks, rows=rows)] for batch in costs]
        plain, balanced = ([waiting(one, ranks=ranks, rows=rows) for one in each] for each in (costs, dealt))
        return float(np.mean(plain)), float(np.mean(balanced))

    def eval_samples(self, *, period: int, count: int) -> Any:
        """Return the validation set: `count` items that repeat after `period` items."""
        assert self.valid is not None
        readers = [self.reader(source.plan, number) for number, source in enumerate(self.valid.sources)]
        return EvalSamples(readers, seed=self.setup.args.seed, period=period, count=count)

    def reader(self, plan: Plan, source: int) -> Reader:
        """Return a reader of a plan's samples.

        Args:
            source: number of the source in its mixture, which every sample carries as `source`.
        """
        return Reader(
            plan,
            seq_length=self.setup.layout.seq_length,
            pad_id=self.setup.directories[0][2].manifest.tokenizer.pad_id,
            every_token=self.every_token,
            source=source,
        )

    def forward_step(self) -> Callable[..., Any]:
        """Return Megatron's `forward_step_func`."""
        from sft_shards.trainer.mcore.forward_step import ForwardStep  # imports torch; a dry run makes no step

        names = tuple(source.name for source in self.valid.sources) if self.valid else ()
        return ForwardStep(
            packed=self.setup.isolation.packed,
            context=self.setup.layout.context,
            meter=self.meter,
            loss_chunk=self.setup.job.loss_chunk,
            sources=names if len(names) > 1 else (),
        )

    def model_provider(self) -> Callable[..., Any]:
        """Return Megatron's `model_provider`."""
        return partial(provider.model_provider, attention=self.setup.isolation.kernel)


def cost_model(args: Namespace) -> CostModel:
    """Return what a layer of the model costs, in multiplications.

    Args:
        args: Megatron's parsed flags.
    """
    hidden, heads = args.hidden_size, args.num_attention_heads
    channels = getattr(args, "kv_channels", None) or hidden // heads
    groups = (args.num_query_groups if getattr(args, "group_query_attention", False) else None) or heads
    inner = getattr(args, "ffn_hidden_size", None) or 4 * hidden
    experts = 1
    if getattr(args, "num_experts", None):
        inner, experts = getattr(args, "moe_ffn_hidden_size", None) or inner, getattr(args, "moe_router_topk", 1)
    matrices = 3 if getattr(args, "swiglu", False) else 2
    linear = 2 * hidden * channels * (heads + groups) + matrices * hidden * inner * experts
    return CostModel(linear=linear, quadratic=2 * heads * channels)


class PretrainStage(Stage):
    """Continued pretraining: the same shards, with loss on every token."""

    every_token = True
