"""Show what a start would do, without a GPU: `sft-train … --dry-run`.

This process resolves the job as rank 0 would, with the CPU in place of the GPU, so that a wrong call gives the same
errors as a real start. Torch and Megatron are imported where the cache does not say what they would answer (see
`flag_table` and `accepted_calls` in `mcore`). The output is a shell script: the environment variables with reasons, the
torchrun command, and Megatron's flags as comments.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from sft_shards.formats.scripts import all_checked, comment
from sft_shards.formats.terminal import status
from sft_shards.trainer.launch import environment
from sft_shards.trainer.launch.launcher import Launch, torchrun, warn
from sft_shards.trainer.mcore import accepted_calls, compat, cpu_device
from sft_shards.trainer.resolve import NO_TOKENIZER, Decision, decide, decide_by_table


def check(planned: Launch) -> Decision:
    """Resolve the job in this process as rank 0 would, and let Megatron validate the flags.

    Raises:
        UsageError, DataError: as the first worker would.
    """
    compat.check_installed()
    with _as_rank_0(planned):
        quick = decide_by_table(planned.job, planned.world)
        variables = dict(os.environ)  # torch and Megatron add some of their own
        known = None if quick is None else accepted_calls.warning_of(quick.argv, quick.padded, variables)
        if quick is not None and known is not None:
            warn(known)
            return quick
        status("importing torch and Megatron, which check the flags")
        with compat.uncollected(), compat.uncompiled():
            with compat.quiet():
                cpu_device.install()
                warning = compat.check_version()
            warn(warning)
            decision = quick or decide(planned.job, planned.world)
            with compat.without_transformers() if NO_TOKENIZER in decision.argv else nullcontext():
                decision.configure()
        accepted_calls.keep(decision.argv, decision.padded, variables, warning=warning)
        return decision


@contextmanager
def _as_rank_0(planned: Launch) -> Iterator[None]:
    """Give this process the environment of rank 0, and take it away again: a batch script would inherit it."""
    before = dict(os.environ)
    environment.apply(planned.variables, os.environ)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(planned.world), LOCAL_WORLD_SIZE=str(planned.nproc))
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # Megatron's decorators would import the compiler, for seconds
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def script(planned: Launch, decision: Decision) -> str:
    """Return the start as a shell script.

    Raises:
        UsageError: a flag or the name of a folder holds a control character.
    """
    nodes = planned.nodes
    where = f" on node {nodes.rank} of {nodes.count}" if nodes.count > 1 else ""
    return "\n".join(
        (
            *map(comment, (*notes(planned), *decision.summary)),
            "",
            "# The workers' environment",
            *(variable.shell() for variable in planned.variables),
            "",
            f"# The workers{where}; sft-train runs torchrun's agent in its own process",
            shlex.join(all_checked([*torchrun(), *planned.torchrun()], "the call")),
            "",
            "# Megatron's flags, as each worker gives them to pretrain()",
            *(f"#   {shlex.join(all_checked(words, words[0]))}" for words in by_flag(decision.argv)),
            "",
        )
    )


def notes(planned: Launch) -> Iterator[str]:
    """Yield what was assumed because no GPU was looked at."""
    if planned.job.device == "cpu":
        return
    if not planned.gpus:
        yield f"no GPU was looked at: {planned.nproc} AMD GPUs on each node are assumed (--nproc N for another number)"
    yield "attention is shown as if it had passed its trial, which is made on the GPU at the start"


def by_flag(argv: Sequence[str]) -> list[list[str]]:
    """Group the words of a command line: each flag with its values."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return groups
