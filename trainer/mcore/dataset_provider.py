"""The data set provider: Megatron asks it for the training and validation sets of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DatasetProvider:
    """Makes the same data sets on every rank; `pretrain()` calls it."""

    stage: Any
    """A `sft_shards.trainer.stage.Stage`."""
    eval_pass: int
    """Samples of one evaluation, a multiple of the evaluation batch; 0: no evaluation."""
    consumed: Callable[[], int] = lambda: 0
    """Gives the training samples that earlier parts of the run consumed; asked after a checkpoint was loaded."""
    is_distributed: bool = True
    """Must be True: otherwise Megatron makes data sets on the first tensor rank only, and TP > 1 deadlocks."""

    def __call__(self, num_samples: Any, vp_stage: int | None = None) -> tuple[Any, Any, None]:
        """Return the training and validation sets, and None for the test set, which is never read while training.

        Args:
            num_samples: (train, validation, test) samples that Megatron will draw.
            vp_stage: the virtual pipeline stage that asks; all of them get the same sets.
        """
        # One more than is drawn: Megatron's sampler refuses to resume a finished run that has used up the whole set.
        train = self.stage.train_samples(num_samples[0] + 1)
        train = self.stage.balanced(train, consumed=self.consumed())
        if not self.eval_pass:
            return train, None, None
        # Megatron draws from it without end, except in a full validation (None), which is one pass.
        count = self.eval_pass if num_samples[1] is None else self.eval_pass << 20
        valid = self.stage.eval_samples(period=self.eval_pass, count=count)
        from megatron.core.datasets.utils import Split

        valid.split = Split.valid  # Megatron chooses the batch size by it
        return train, valid, None
