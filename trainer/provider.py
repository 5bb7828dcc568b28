"""The data sets of a run, as Megatron asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.data import EvalSamples, Selection, TrainSamples


@dataclass(frozen=True, kw_only=True)
class DatasetProvider:
    """Called by `pretrain()` on every rank; every rank makes the same data sets."""

    train: Selection
    valid: Selection | None
    """None: there is nothing to evaluate on."""
    seq_length: int
    pad_id: int
    seed: int
    eval_pass: int
    """Samples of one evaluation, a multiple of the evaluation batch."""
    is_distributed: bool = True
    """Megatron builds data sets on every tensor rank only where this is set, and deadlocks with TP > 1 otherwise."""

    def __call__(self, num_samples: Any, vp_stage: int | None = None) -> tuple[Any, Any, None]:
        """The train and validation sets; the test split is for measuring afterwards, and never read here.

        Args:
            num_samples: (train, validation, test) samples that Megatron will draw.
            vp_stage: the virtual pipeline stage that asks; all of them read the same.
        """
        shape = {"seq_length": self.seq_length, "pad_id": self.pad_id, "seed": self.seed}
        # One more than is drawn: Megatron's sampler refuses a set that a finished run has used up.
        train = TrainSamples(self.train, count=num_samples[0] + 1, **shape)
        if self.valid is None:
            return train, None, None
        # Megatron draws without end, except in a full validation (None), which is one pass.
        count = self.eval_pass if num_samples[1] is None else self.eval_pass << 20
        valid = EvalSamples(self.valid, period=self.eval_pass, count=count, **shape)
        from megatron.core.datasets.utils import Split

        valid.split = Split.valid  # by this Megatron knows which batch size is meant
        return train, valid, None
