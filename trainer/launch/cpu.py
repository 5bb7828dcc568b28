"""Environment variables for a rehearsal on the CPU, one reason a line."""

from __future__ import annotations

from sft_shards.trainer.launch.environment import Wanted
from sft_shards.trainer.mcore import attention_backends


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
