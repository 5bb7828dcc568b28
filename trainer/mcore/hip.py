"""Which HIP versions let Megatron's checkpoint writers fork, and what is done about the others.

Below HIP 7.1 a process that is forked after it has pinned memory crashes. Megatron's writers of torch_dist fork: those
of `--async-save` in every version, up to Megatron 0.16 those of an ordinary save too, right after tensors were copied
to pinned memory. Copies to ordinary memory avoid it and cost some of the save's speed. Sources: Megatron's own checks,
megatron/core/dist_checkpointing/strategies/filesystem_async.py; not run on an AMD GPU by this project.
"""

from __future__ import annotations

from typing import Any

from sft_shards.trainer.mcore.compat import accepted, parse_version

FORK_SAFE = (7, 1)
"""The first major and minor version of HIP in which a process may fork while memory is pinned."""


def forks_safely(version: str) -> bool:
    """Return whether this `torch.version.hip` lets a process fork with pinned memory; True if it cannot be read."""
    found = parse_version(version)
    return found is None or found >= FORK_SAFE


def save_without_pinned_memory(version: str | None) -> str:
    """Have Megatron copy tensors to ordinary memory before a save, where its writers could not fork otherwise.

    Args:
        version: `torch.version.hip`; None: not an AMD GPU.

    Returns:
        A warning where it would be needed and this Megatron has no such copy to change, else "".
    """
    if not version or forks_safely(version):
        return ""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    writer: Any = getattr(filesystem_async, "FileSystemWriterAsync", None)
    copy = getattr(writer, "preload_tensors", None)
    blocking = {"non_blocking": False}
    if copy is None or not accepted(copy, blocking):
        return (
            f"HIP {version}: below {'.'.join(map(str, FORK_SAFE))} saving may crash, because this Megatron's writers "
            "fork after memory was pinned; use --ckpt-format torch, or a newer ROCm"
        )

    def preload_tensors(write_buckets: Any, non_blocking: bool = True) -> Any:
        return copy(write_buckets, **blocking)

    writer.preload_tensors = staticmethod(preload_tensors)
    return ""
