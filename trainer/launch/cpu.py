"""Environment variables for a rehearsal on the CPU, one reason a line."""

from __future__ import annotations

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.launch.environment import Wanted
from sft_shards.trainer.mcore import attention_backends

WORKER = 400 << 20
"""Bytes that a worker has for itself before it builds a model: torch's and Megatron's modules (`Private_Dirty` in
/proc/self/smaps_rollup behind `import megatron.training`, 419 MiB with torch 2.13 and Megatron 0.19.2)."""


def require_memory(processes: int, available: int) -> None:
    """Refuse more workers than fit into memory, before any of them imports torch.

    Args:
        processes: workers on this machine.
        available: bytes of memory; 0 where that is not known.

    Raises:
        UsageError: they do not fit, even without a model.
    """
    if available and processes > 1 and processes * WORKER > available:
        most = max(1, available // WORKER)
        raise UsageError(
            f"--nproc {processes}: a worker on the CPU takes {WORKER >> 20} MiB before it has a model, and "
            f"{available >> 20:,} MiB are free; {most} at most would fit, fewer with a model"
        )


def wanted(cores: int, processes: int, *, alone: bool = True) -> Wanted:
    """Return the variables that must be set before torch is imported, with reasons.

    Args:
        cores: that this machine has for the run.
        processes: workers on this machine.
        alone: the run is on one machine.
    """
    gloo: Wanted = {"GLOO_SOCKET_IFNAME": ("lo", "one machine: its host name is not resolved")}
    # Images choose attention kernels, and Megatron ends if the choice does not agree with --attention-backend.
    unset = dict.fromkeys(attention_backends.VARIABLES, (None, "for Transformer Engine, which the CPU does without"))
    return {
        "CUDA_DEVICE_MAX_CONNECTIONS": ("1", "Megatron asserts it with TP > 1"),
        "TORCHDYNAMO_DISABLE": ("1", "Megatron's jit decorators would compile for minutes"),
        "OMP_NUM_THREADS": (str(max(1, cores // processes)), "the cores of this machine, shared by its processes"),
        **unset,
        **(gloo if alone else {}),
    }
