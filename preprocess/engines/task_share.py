"""The share of one process among W that run the tasks of a plan: every W-th task from the r-th on.

r and W come from the call or from the scheduler. Tasks are dealt out like cards, because neighbours are parts of one
file and often equally slow. W has nothing to do with the number of tasks, and may change from one attempt to the next:
finished tasks are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sft_shards.formats.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Share:
    """One of several processes.

    Raises:
        UsageError: the rank is not below `world_size`.
    """

    rank: int
    """This process, from 0."""
    world_size: int
    """Number of processes."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UsageError(
                f"--rank {self.rank}: must be from 0 to {self.world_size - 1} with --world-size {self.world_size}"
            )

    def of(self, count: int) -> range:
        """Give the numbers of this process's tasks, out of `count`: of 5 tasks, rank 1 of 2 has 1 and 3."""
        return range(self.rank, count, self.world_size)


PAIRS = (("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"), ("RANK", "WORLD_SIZE"))
"""Environment variables for r and W, in the order in which they are looked for.

Kubernetes does not tell a pod how many there are; the Jobs that we print do, as JOB_COMPLETIONS."""


def find_share(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> Share:
    """Take the share that the call names, else the scheduler's, else all tasks.

    Elements of a Slurm array are ranked by their numbers; the tasks of one `srun` in an element divide its share.

    Raises:
        UsageError: one value of a pair is missing, or values do not fit together.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("--rank and --world-size: give both or neither")
    if rank is not None and world_size is not None:
        return Share(rank=rank, world_size=world_size)
    if "SLURM_JOB_ID" in environment:
        return _slurm(environment)
    for one, other in PAIRS:
        if one in environment:
            if other not in environment:
                raise UsageError(f"{one} is set and {other} is not: set it, or give --rank and --world-size")
            return Share(rank=_number(environment, one), world_size=_number(environment, other))
    return Share(rank=0, world_size=1)


def _slurm(environment: Mapping[str, str]) -> Share:
    rank, size = 0, 1
    if "SLURM_ARRAY_TASK_ID" in environment:
        first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
        last = _number(environment, "SLURM_ARRAY_TASK_MAX", first)
        size = _number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
        step = (last - first) // (size - 1) if size > 1 else 1
        rank, rest = divmod(_number(environment, "SLURM_ARRAY_TASK_ID") - first, step)
        if rest or last - first != step * (size - 1):
            raise UsageError("the numbers of this Slurm array are not evenly spaced; give --rank and --world-size")
    if "SLURM_STEP_NUM_TASKS" in environment:  # set by srun, and not in a batch script of several tasks
        tasks = _number(environment, "SLURM_STEP_NUM_TASKS")
        rank, size = rank * tasks + _number(environment, "SLURM_PROCID", 0), size * tasks
    return Share(rank=rank, world_size=size)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = environment.get(name, "" if default is None else str(default))
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{name}={value!r}: must be a number") from None
