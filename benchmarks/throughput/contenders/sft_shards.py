"""Ours: `sft-preprocess run`, and the `task` step of the same job by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.throughput.contenders.contender import Contender, Sequences, quiet


def command(*arguments: str) -> None:
    """Call `sft-preprocess` in this process."""
    from sft_shards.preprocess.cli import cli

    with quiet():
        cli(list(arguments), standalone_mode=False)


class RunCommand(Contender):
    """The whole command, in this process."""

    def options(self, source: Path, target: Path) -> list[str]:
        """The arguments of `run` and of `plan`."""
        options = ["--output", str(target / "out"), "--tokenizer", self.settings.tokenizer]
        options += ["--format", self.settings.record_format]
        if self.settings.backend is not None:
            options += ["--tokenizer-engine", self.settings.backend]
        return [str(source / self.settings.file), *options]

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        command("run", *self.options(source, target), "--workers", "1")

    def read(self, target: Path) -> Sequences:  # noqa: D102
        from sft_shards.formats.shards import ShardDirectory

        train = ShardDirectory(target / "out").split("train")
        ids, masks = zip(*(train[row] for row in range(len(train))), strict=True)
        lengths = train.lengths().astype(np.int64)
        return Sequences(lengths=lengths, ids=np.concatenate(ids).astype(np.int64), mask=np.concatenate(masks))


class TaskCommand(RunCommand):
    """The tasks of the job alone: read, render, tokenize, mask and write; planned before the clock starts."""

    def prepare(self, source: Path, target: Path) -> None:  # noqa: D102
        command("plan", *self.options(source, target))

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        command("task", "--output", str(target / "out"), "--workers", "1")

    def read(self, target: Path) -> Sequences:  # noqa: D102
        command("finalize", "--output", str(target / "out"))
        return super().read(target)
