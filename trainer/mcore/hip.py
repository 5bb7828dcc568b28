"""Which HIP versions let Megatron's checkpoint writers fork.

`--async-save` forks a process that writes the checkpoint. Below HIP 7.1 a process that is forked while memory is
pinned crashes. Source: Megatron's own checks; not run on an AMD GPU by this project.
"""

from __future__ import annotations

from sft_shards.trainer.mcore.compat import parse_version

FORK_SAFE = (7, 1)
"""The first major and minor version of HIP in which a process may fork while memory is pinned."""


def forks_safely(version: str) -> bool:
    """Return whether this `torch.version.hip` lets a process fork with pinned memory; True if it cannot be read."""
    found = parse_version(version)
    return found is None or found >= FORK_SAFE
