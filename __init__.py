"""Tokenize fine-tuning data once, into shards that carry their loss mask; look at them, and train from them.

    import sft_shards
    sft_shards.run("tests/data/alpaca_en.json", output="alpaca-shards", tokenizer="tests/data/tokenizer", workers=1)
    tokens, loss_mask = sft_shards.open("alpaca-shards")["train"][0]
    print(len(tokens), "tokens, of which", loss_mask.sum(), "carry loss")

This folder is the package `sft_shards` (`package_dir` in setup.cfg). Importing it imports nothing else; docs/python.md
shows more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sft_shards.trainer.data.conversations import Shards

__all__ = ["open", "run"]


def open(path: str | os.PathLike[str]) -> Shards:
    """Open a shard directory: `open("shards")["train"]` is a sequence of token ids and loss masks.

    Raises:
        DataError: it is no complete shard directory.
    """
    from sft_shards.trainer.data.conversations import Shards

    return Shards(path)


def run(
    *inputs: str | os.PathLike[str],
    output: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    workers: int | None = None,
    overwrite: bool = False,
    max_rejects: str | None = None,
    **options: Any,
) -> Shards:
    """Turn raw records into a shard directory on this machine, and open it: what `sft-preprocess run` does.

    Called again it does nothing, and opens what is there.

    Args:
        inputs: files, globs, folders, or OWNER/NAME[:SPLIT] on the Hub.
        output: the shard directory to write.
        tokenizer: a folder, or a name on the Hub.
        workers: processes (default: one per CPU, fewer for small inputs).
        overwrite: replace the shard directory at `output` when the new one is complete.
        max_rejects: fail if more records are left out: a number, or a percentage such as "1%".
        options: the other options that decide about the bytes, with underscores: `valid_fraction=0.01`.

    Raises:
        UsageError: the call is wrong; nothing was written.
        DataError: something is wrong with the data or the machine; nothing was published.
    """
    from sft_shards.preprocess import job
    from sft_shards.preprocess.config import JobConfig

    named = {**options, "inputs": tuple(os.fspath(one) for one in inputs), "tokenizer": os.fspath(tokenizer)}
    config = JobConfig.of_options(named)
    job.run(config, Path(output), workers=workers, overwrite=overwrite, max_rejects=max_rejects)
    return open(output)
