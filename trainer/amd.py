"""What AMD GPUs want in the environment, one reason a line; nothing that the user has set is touched.

The values are those that AMD's own trainer Primus exports before Megatron (v26.5). None of them was run on an AMD
GPU by this project's tests.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

ALWAYS = {
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron asserts it with TP > 1: keeps its kernels in launch order
}
ROCM = {
    "HSA_NO_SCRATCH_RECLAIM": "1",  # reclaiming scratch memory between kernels stalls them
    "HSA_ENABLE_SDMA": "1",  # copies run on their own engines, beside the kernels
    "GPU_MAX_HW_QUEUES": "2",  # more hardware queues than compute and communication cost time to switch
    "NCCL_CHECKS_DISABLE": "1",  # argument checks on every collective
    "TORCH_NCCL_HIGH_PRIORITY": "1",  # communication is not queued behind computation
    "NCCL_CROSS_NIC": "0",  # rings stay on one network rail
    "NCCL_PXN_DISABLE": "1",  # no detour over another GPU of the node to reach a NIC
    "NCCL_P2P_NET_CHUNKSIZE": "524288",  # larger pieces for pipeline and all-to-all traffic between nodes
    "NCCL_IB_GID_INDEX": "3",  # RoCE v2 addresses
    "RCCL_MSCCL_ENABLE": "0",  # alternative collectives that have hung with Megatron
    "RCCL_MSCCLPP_ENABLE": "0",
    "NVTE_CK_USES_BWD_V3": "1",  # the faster composable-kernel attention backward
    "PYTORCH_HIP_ALLOC_CONF": "expandable_segments:True",  # less fragmentation with varying shapes
}


def apply(environment: MutableMapping[str, str] | None = None, *, rocm: bool) -> dict[str, str]:
    """Set what is not set yet, and return what was set. `rocm`: torch is built for AMD (`torch.version.hip`)."""
    environment = os.environ if environment is None else environment
    wanted = {**ALWAYS, **(ROCM if rocm else {})}
    added = {name: value for name, value in wanted.items() if name not in environment}
    environment.update(added)
    return added
