"""Stages of another package, found by their entry points."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from sft_shards.trainer.stage import Stage


class Changed:
    """A map-style data set over another."""

    def __init__(self, samples: Any, change: Any) -> None:
        self.samples = samples
        self.change = change

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.change(item, self.samples[item])


class Costed(Changed):
    """One whose samples are dealt to ranks as the other's are."""

    def cost(self, item: int) -> int:
        cost: int = self.samples.cost(item)
        return cost


class Holes(Stage):
    """Of steps of four samples, the second has no trained token, the third none on the first of two ranks."""

    def train_samples(self, count: int) -> Any:
        def change(item: int, sample: dict[str, Any]) -> dict[str, Any]:
            return {**sample, "loss_mask": sample["loss_mask"] * 0} if item in {4, 5, 6, 7, 8, 9} else sample

        return Changed(super().train_samples(count), change)


class Theirs(Stage):
    """Megatron-LM's own SFTDataset over the same ids, one conversation per sample; TOY_PAD is its padding id."""

    def train_samples(self, count: int) -> Any:
        from megatron.training.datasets.sft_dataset import IGNORE_INDEX, SFTDataset

        samples = super().train_samples(count)
        pad = int(os.environ["TOY_PAD"])

        def change(item: int, ours: dict[str, Any]) -> dict[str, Any]:
            source, number = samples.mixture.locate(item)
            ((ids, mask),) = samples.readers[source].conversations(number)
            tokens = ids.astype(np.int64)

            def tokenize_conversation(conversation: Any, **_: Any) -> Any:
                return tokens, np.where(mask == 1, tokens, IGNORE_INDEX)

            theirs = SFTDataset.__new__(SFTDataset)
            theirs.dataset, theirs.indices = [[{"role": "user", "content": ""}]], np.zeros(1, dtype=int)
            theirs.config = SimpleNamespace(
                tokenizer=SimpleNamespace(pad=pad, eod=1, tokenize_conversation=tokenize_conversation),
                sequence_length=self.setup.layout.seq_length,
                context_parallel_size=1,
                reset_position_ids=False,
                create_attention_mask=False,
                reset_attention_mask=False,
            )
            made = {
                name: value.numpy() for name, value in theirs[0].items() if name not in ("cu_seqlens", "max_seqlen")
            }
            missed = np.flatnonzero(made["loss_mask"] != ours["loss_mask"])
            assert (ours["labels"][missed] == pad).all(), "they differ where the label is the padding id, only there"
            assert (made["tokens"] == ours["tokens"])[: len(ids) - 1].all()
            made["labels"] = np.maximum(made["labels"], 0)
            return {**made, "source": ours["source"]}

        return Changed(samples, change)


class Held(Stage):
    """Training that waits for SIGTERM when it reaches step TOY_HOLD: a test may take as long as it likes to stop it.

    SIGTERM counts from the first sample on. Who sends it after step TOY_HOLD - 1 was logged finds the step waiting.
    """

    def train_samples(self, count: int) -> Any:
        size, step = self.setup.layout.global_batch, int(os.environ["TOY_HOLD"])
        told: list[int] = []

        def watch() -> None:
            before = signal.getsignal(signal.SIGTERM)  # Megatron's, which makes it save and leave after the step

            def handle(number: int, frame: Any) -> None:
                told.append(number)
                if callable(before):
                    before(number, frame)

            signal.signal(signal.SIGTERM, handle)

        watched: list[bool] = []

        def change(item: int, sample: dict[str, Any]) -> dict[str, Any]:
            if not watched:
                watched.append(True)
                watch()
            while (step - 1) * size <= item < step * size and not told:
                time.sleep(0.02)
            return sample

        return Costed(super().train_samples(count), change)


class Dying(Stage):
    """Training that dies at its first sample: TOY_DEATH is `raise` or `abort`."""

    def train_samples(self, count: int) -> Any:
        def change(item: int, sample: dict[str, Any]) -> dict[str, Any]:
            if os.environ["TOY_DEATH"] == "raise":
                raise RuntimeError("no kernel image is available")
            os.write(2, b"terminate called: no HIP device\n")
            os.abort()

        return Changed(super().train_samples(count), change)


def function() -> None:
    """Not a stage."""
