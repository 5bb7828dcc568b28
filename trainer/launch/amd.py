"""Environment variables for runs on GPUs, one reason a line, and a warning about HIP versions.

The values for AMD GPUs are those that AMD's own trainer Primus exports before Megatron (v26.5). None of them was run on
an AMD GPU by this project; docs/amd.md says line by line what was run.
"""

from __future__ import annotations

from collections.abc import Mapping

from sft_shards.trainer.doctor.checks_network import GID_INDEX
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch.environment import Wanted
from sft_shards.trainer.mcore import attention_backends, hip

MEGATRON: Wanted = {
    "CUDA_DEVICE_MAX_CONNECTIONS": ("1", "Megatron asserts it with TP > 1: keeps its kernels in launch order"),
}
ROCM: Wanted = {
    "HSA_NO_SCRATCH_RECLAIM": ("1", "reclaiming scratch memory between kernels stalls them"),
    "HSA_ENABLE_SDMA": ("1", "copies run on engines of their own, beside the kernels"),
    "GPU_MAX_HW_QUEUES": ("2", "one queue to compute, one to communicate; switching between more costs time"),
    "NCCL_CHECKS_DISABLE": ("1", "no check of the arguments at every collective"),
    "TORCH_NCCL_HIGH_PRIORITY": ("1", "communication is not queued behind computation"),
    "NCCL_CROSS_NIC": ("0", "rings stay on one network rail"),
    "NCCL_PXN_DISABLE": ("1", "no detour over another GPU of the node to reach a network card"),
    "NCCL_P2P_NET_CHUNKSIZE": ("524288", "larger pieces for pipeline and all-to-all traffic between nodes"),
    "NCCL_IB_GID_INDEX": (GID_INDEX, "addresses of RoCE v2"),
    "RCCL_MSCCL_ENABLE": ("0", "other collectives, which Primus switches off for Megatron"),
    "RCCL_MSCCLPP_ENABLE": ("0", "the same, in their newer form"),
    "NVTE_CK_USES_BWD_V3": ("1", "the faster backward of composable-kernel attention"),
    "PYTORCH_HIP_ALLOC_CONF": ("expandable_segments:True", "less fragmentation when shapes vary"),
}
DETERMINISTIC: Wanted = {
    "NCCL_ALGO": ("Ring", "--deterministic-mode: one order of summation"),
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": ("0", "--deterministic-mode: no attention backward that sums in any order"),
}
DETERMINISTIC_ROCM: Wanted = {
    "ROCBLAS_DEFAULT_ATOMICS_MODE": ("0", "--deterministic-mode: matrix products without atomic additions"),
}
DEFAULT_BACKEND = "fused"
"""Composable kernels, the choice of Primus."""


def wanted(job: Job, environment: Mapping[str, str], *, rocm: bool) -> Wanted:
    """Return the variables for a run on GPUs, with reasons.

    Args:
        environment: of this process; its NVTE variables may choose the attention backend.
        rocm: the GPUs are AMD's; others get only what Megatron asserts.
    """
    deterministic = bool(job.given("deterministic-mode"))
    if not rocm:
        return {**MEGATRON, **(DETERMINISTIC if deterministic else {})}
    reason = f"set by the image; Megatron gets --attention-backend {backend(job, environment)} instead"
    return {
        **MEGATRON,
        **ROCM,
        **({**DETERMINISTIC, **DETERMINISTIC_ROCM} if deterministic else {}),
        **dict.fromkeys(attention_backends.VARIABLES, (None, reason)),
    }


def backend(job: Job, environment: Mapping[str, str]) -> str:
    """Return the attention backend on AMD GPUs: of the user's flags, else of their environment, else ours."""
    said = attention_backends.from_environment(environment)
    return str(job.given("attention-backend") or said or DEFAULT_BACKEND)


def warning(job: Job, version: str | None) -> str:
    """Return a warning if the flags ask for what this HIP (`torch.version.hip`) does not support, else ""."""
    if not version or not job.given("async-save") or hip.forks_safely(version):
        return ""
    first = ".".join(map(str, hip.FORK_SAFE))
    return (
        f"--async-save under HIP {version}: below {first} the forked writer crashes on pinned "
        "memory; leave it out, or use a newer ROCm"
    )
