"""Machines that are not there: eight MI300X and everything right, to be changed by a test in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft_shards.trainer.doctor.examine import CHECKS, Check, examine
from sft_shards.trainer.doctor.imports import Imported
from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.doctor.report import Finding

GIB = 1 << 30
MI300X = {"name": "AMD Instinct MI300X", "arch": "gfx942", "free": 191 * GIB, "total": 192 * GIB}
PLACE = "/opt/Megatron-LM"
IMPORTED = {
    "torch": Imported(facts={"version": "2.12.0", "hip": "7.2.1", "cuda": None, "nccl": True, "gloo": True}),
    "gpus": Imported(facts={"devices": [MI300X] * 8, "reason": "", "rccl": "2.27.7"}),
    "transformer_engine": Imported(facts={"version": "2.8.0"}),
    "apex": Imported(facts={"version": "1.10.0", "wgrad": True}),
    "flash_attn": Imported(facts={"version": "2.8.3"}),
    "megatron": Imported(facts={"version": "0.16.0rc0", "core": PLACE, "training": PLACE, "failure": ""}),
    "helpers": Imported(facts={}),
    "psutil": Imported(facts={"version": "7.0.0"}),
}
MISSING = Imported(failure="ModuleNotFoundError: No module named 'it'", missing=True)
RAISED = Imported(failure="ImportError: libamdhip64.so.7: cannot open shared object file")
DIED = Imported(failure="the import ended in SIGABRT (terminate called)", died=True)
FILES = {
    "/dev/kfd": "",
    "/proc/meminfo": "MemTotal: 2000000000 kB\nMemAvailable:   1500000000 kB\n",
    "/proc/self/mountinfo": "20 1 0:1 / / rw - overlay overlay rw\n21 20 0:2 / /dev/shm rw - tmpfs tmpfs rw\n",
    "/proc/sys/kernel/numa_balancing": "0\n",
    "/sys/fs/cgroup/memory.max": "max\n",
    "/sys/class/net/lo/operstate": "unknown\n",
    "/sys/class/net/eth0/operstate": "up\n",
    "/sys/class/net/eth1/operstate": "down\n",
    "/sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 96\ngfx_target_version 0\n",
    "/dev/shm/.keep": "",
}
for number in range(8):
    FILES[f"/dev/dri/renderD{128 + number}"] = ""
    FILES[f"/sys/class/kfd/kfd/topology/nodes/{number + 1}/properties"] = "simd_count 1216\ngfx_target_version 90402\n"
CARD = "/sys/class/infiniband/rdma0/ports/1"
RDMA = {
    "/dev/infiniband/uverbs0": "",
    f"{CARD}/state": "4: ACTIVE\n",
    f"{CARD}/link_layer": "Ethernet\n",
    f"{CARD}/gids/1": "fe80:0000:0000:0000:0000:0000:0000:0001\n",
    f"{CARD}/gids/3": "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
    f"{CARD}/gid_attrs/types/1": "IB/RoCE v1\n",
    f"{CARD}/gid_attrs/types/3": "RoCE v2\n",
}


def disk(blocks: int) -> os.statvfs_result:
    """A file system of so many blocks of 1 MiB, all free."""
    return os.statvfs_result((1 << 20, 1 << 20, blocks, blocks, blocks, 0, 0, 0, 0, 255))


def fake(
    root: Path,
    *,
    files: Mapping[str, str | None] | None = None,
    imported: Mapping[str, Imported] | None = None,
    **fields: Any,
) -> Machine:
    """A machine below `root`: `files` to add (None: to leave out), `imported` and other fields to replace."""
    for name, text in {**FILES, **(files or {})}.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)
    usual: dict[str, Any] = {
        "environ": {"SFT_SHARDS_CACHE": str(root / "cache")},
        "python": (3, 12, 3),
        "limit": lambda kind: -1,
        "statvfs": lambda path: disk(64 << 10),
        "access": lambda path, mode: True,
        "resolve": lambda host: "10.0.0.1",
        "cores": lambda: 192,
        "trial": lambda kinds: {},
    }
    return Machine(root=root, imported={**IMPORTED, **(imported or {})}, **{**usual, **fields})


def only(check: Check, machine: Machine) -> Finding:
    """The one finding of a check."""
    (found,) = examine(machine, [check])
    return found


def bad(machine: Machine) -> list[str]:
    """Status and name of every finding that is not ok."""
    return [f"{found.status}: {found.name}" for found in examine(machine, CHECKS) if found.status != "ok"]
