"""Does a resumed run go on with the packs that it began with?

Megatron resumes by the number of samples that were consumed. With context parallelism conversations take a multiple of
2 x CP positions, so another CP is another pack plan, in which that number stands for other conversations: some would be
seen twice and others never. TP, PP, DP and the micro-batch change no pack.
"""

from __future__ import annotations

import contextlib
from argparse import Namespace
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.mcore import saved_arguments
from sft_shards.trainer.model.start import has_checkpoint


def check(args: Namespace) -> None:
    """Compare the context-parallel size of a run that trains packed samples with that of the checkpoint at --load.

    A checkpoint without readable arguments, or of a run that has consumed nothing, goes on with any.

    Args:
        args: Megatron's parsed flags.

    Raises:
        UsageError: the checkpoint's is another one.
    """
    if not args.load or not has_checkpoint(args.load) or getattr(args, "finetune", False) or args.skip_train:
        return
    saved = Namespace()
    with contextlib.suppress(UsageError, DataError):  # of another tool; Megatron says what is wrong with it
        saved = saved_arguments.read(Path(args.load), getattr(args, "ckpt_step", None))
    began, now = getattr(saved, "context_parallel_size", None), args.context_parallel_size
    if isinstance(began, int) and began != now and getattr(saved, "consumed_train_samples", 0):
        raise UsageError(
            f"--load {args.load}: this run began with --context-parallel-size {began}, and {now} would pack its "
            f"conversations in another way; give {began} again, or --finetune to begin anew from its weights"
        )
