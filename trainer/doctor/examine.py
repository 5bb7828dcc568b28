"""Run every check, in the order of the report; a check that raises becomes a failing finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sft_shards.trainer.doctor import checks_gpu, checks_network, checks_shards, checks_software, checks_system
from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.doctor.report import Finding, failing

Check = Callable[[Machine], list[Finding]]
CHECKS: tuple[Check, ...] = (
    checks_software.python,
    checks_software.torch,
    checks_software.hip,
    checks_gpu.driver,
    checks_gpu.hidden,
    checks_gpu.gpus,
    checks_gpu.rccl,
    checks_software.megatron,
    checks_software.helpers,
    checks_software.psutil,
    checks_software.transformer_engine,
    checks_gpu.packed_attention,
    checks_software.apex,
    checks_software.flash_attn,
    checks_software.attention_variables,
    checks_network.interfaces,
    checks_network.rdma,
    checks_network.rendezvous,
    checks_system.shared_memory,
    checks_system.open_files,
    checks_system.locked_memory,
    checks_system.numa_balancing,
    checks_system.cores,
    checks_system.cache,
    checks_shards.shards,
)


def examine(machine: Machine, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return what the checks found on a machine; an exception of a check becomes a finding."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(machine)
        except Exception as error:  # a machine may be unlike any that was seen
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            name = check.__name__.replace("_", " ")
            found.append(failing(name, f"the check failed ({words})", "report this as a bug of sft-train doctor"))
    return found
