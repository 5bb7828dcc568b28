"""The data sets of a run, as Megatron asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DatasetProvider:
    """Called by `pretrain()` on every rank; every rank makes the same data sets."""

    stage: Any
    """A `sft_shards.trainer.stage.Stage`."""
    eval_pass: int
    """Samples of one evaluation, a multiple of the evaluation batch; 0: there is none."""
    is_distributed: bool = True
    """Megatron builds data sets on every tensor rank only where this is set, and deadlocks with TP > 1 otherwise."""

    def __call__(self, num_samples: Any, vp_stage: int | None = None) -> tuple[Any, Any, None]:
        """The train and validation sets; the test split is for measuring afterwards, and never read here.

        Args:
            num_samples: (train, validation, test) samples that Megatron will draw.
            vp_stage: the virtual pipeline stage that asks; all of them read the same.
        """
        # One more than is drawn: Megatron's sampler refuses a set that a finished run has used up.
        train = self.stage.train_samples(num_samples[0] + 1)
        if not self.eval_pass:
            return train, None, None
        # Megatron draws without end, except in a full validation (None), which is one pass.
        count = self.eval_pass if num_samples[1] is None else self.eval_pass << 20
        valid = self.stage.eval_samples(period=self.eval_pass, count=count)
        from megatron.core.datasets.utils import Split

        valid.split = Split.valid  # by this Megatron knows which batch size is meant
        return train, valid, None
