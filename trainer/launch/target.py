"""Where a run starts: on this machine, on machines started by hand, through Slurm, or nowhere (`--dry-run`)."""

from __future__ import annotations

from dataclasses import dataclass

from sft_shards.trainer.launch.nodes import Nodes
from sft_shards.trainer.launch.slurm import Slurm


@dataclass(frozen=True, kw_only=True)
class Target:
    """The machines of a run, as `sft_shards.trainer.options` reads them from the command line."""

    dry_run: bool
    """Check everything and print what would be started; start nothing."""
    nodes: Nodes
    """The machines of a start by hand, or as many as Slurm is asked for."""
    slurm: Slurm | None
    """How the job is submitted; None: it starts on this machine."""
    words: tuple[str, ...]
    """The call of `sft-train` without these options, as the batch script repeats it on each node."""
