"""Checks of what a container or an administrator may have set too small: shared memory, limits, cores, the cache.

The limits follow AMD's pages on training (rocm.docs.amd.com: NUMA balancing off, shared memory of some GiB, locked
memory without limit for RDMA) and Docker's own defaults.
"""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from sft_shards.formats.cache_folder import cache_folder
from sft_shards.trainer.doctor.checks_network import RDMA
from sft_shards.trainer.doctor.machine import Machine, format_bytes
from sft_shards.trainer.doctor.report import Finding, failing, ok, warning

SHM = "/dev/shm"  # noqa: S108 - it is measured, nothing is written
SHARED = 1 << 30
OPEN_FILES = 4096
CACHE = 1 << 30


def shared_memory(machine: Machine) -> list[Finding]:
    """Check shared memory: data loaders pass batches through it, and RCCL communicates through it within a machine."""
    name, remedy = "shared memory", "start the container with --ipc=host or --shm-size 16g (Docker's default is 64 MB)"
    try:
        found = machine.statvfs(machine.path(SHM))
    except OSError:
        return [failing(name, f"no {SHM}", remedy)]
    size = found.f_blocks * found.f_frsize
    text = f"{SHM}, {format_bytes(size)}"
    return [warning(name, text, remedy) if size < SHARED else ok(name, text)]


def open_files(machine: Machine) -> list[Finding]:
    """Check the limit of open files: every process maps four files of each shard, and has sockets to other ranks."""
    found = machine.limit(resource.RLIMIT_NOFILE)
    if 0 <= found < OPEN_FILES:
        remedy = "'ulimit -n 65536', or start the container with --ulimit nofile=65536"
        return [warning("open files", f"at most {found}", remedy)]
    return [ok("open files", "no limit" if found < 0 else f"at most {found}")]


def locked_memory(machine: Machine) -> list[Finding]:
    """Check the limit of locked memory: RDMA pins its buffers."""
    if machine.device != "gpu":
        return []
    found = machine.limit(resource.RLIMIT_MEMLOCK)
    text = "no limit" if found < 0 else f"at most {format_bytes(found)}"
    if found >= 0 and machine.names(RDMA):
        remedy = "'ulimit -l unlimited' (limits.conf), or start the container with --ulimit memlock=-1"
        return [warning("locked memory", f"{text}, and RDMA pins its buffers", remedy)]
    return [ok("locked memory", text)]


def numa_balancing(machine: Machine) -> list[Finding]:
    """Check that the kernel does not move pages between NUMA nodes, which stalls GPUs."""
    found = machine.read("/proc/sys/kernel/numa_balancing")
    if machine.device == "gpu" and found not in ("", "0"):
        remedy = "as root on the host: echo 0 > /proc/sys/kernel/numa_balancing"
        return [warning("NUMA balancing", "on; AMD recommends off for training", remedy)]
    return [ok("NUMA balancing", "off")] if machine.device == "gpu" else []


def cores(machine: Machine) -> list[Finding]:
    """Check that there is a core for each GPU's worker; its data loader uses more."""
    count, gpus = machine.cores(), len(machine.gpus())
    if count < gpus:
        remedy = "ask the scheduler for more (Slurm: --cpus-per-task), or give the container more --cpus"
        return [warning("cores", f"{count}, fewer than the {gpus} GPUs", remedy)]
    return [ok("cores", str(count))]


def cache(machine: Machine) -> list[Finding]:
    """Check that the folder of cached pack plans can be written; training writes no other folder by itself."""
    name = "cache"
    asked = machine.environ.get("SFT_SHARDS_CACHE")
    folder = Path(asked) if asked else cache_folder()
    here = folder.absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    kind = machine.mount(here).kind or "unknown file system"
    remedy = "name another folder with $SFT_SHARDS_CACHE or --cache-dir"
    if not here.is_dir():
        return [failing(name, f"{folder}: {here} is not a folder", remedy)]
    try:
        if not machine.access(here, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        with tempfile.TemporaryFile(dir=here):  # a network file system, or one that is full, answers only now
            pass
    except OSError as error:
        return [failing(name, f"{folder} ({kind}): cannot be written ({error.strerror})", remedy)]
    found = machine.statvfs(here)
    free = found.f_bavail * found.f_frsize
    text = f"{folder} ({kind}), {format_bytes(free)} free"
    return [warning(name, text, remedy) if free < CACHE else ok(name, text)]
