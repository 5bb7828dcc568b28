"""The machine as the checks see it. Everything that they read comes through here, so that a test can replace it.

Files are read below `root` (`/proc`, `/sys`, `/dev`); everything else is a field or a function that can be replaced.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sft_shards.trainer.doctor.imports import Imported
from sft_shards.trainer.isolation.trial import failures


def _soft_limit(kind: int) -> int:
    soft = resource.getrlimit(kind)[0]
    return -1 if soft == resource.RLIM_INFINITY else soft


def _resolve(host: str) -> str:
    return socket.gethostbyname(host)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Mount:
    """The file system that holds a path."""

    point: str
    """Mount point; "" if it cannot be told."""
    kind: str
    """Type as in /proc/self/mountinfo, such as ext4; "" if it cannot be told."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, as torch sees it."""

    name: str
    arch: str
    """Such as gfx942; "" if it is not AMD's."""
    free: int
    """Bytes that no process holds."""
    total: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, or a made-up one in a test."""

    device: str = "gpu"
    """What it is to train on, one of `sft_shards.trainer.job.DEVICES`."""
    shards: tuple[str, ...] = ()
    """`DIR` or `DIR:WEIGHT`, as in --shards."""
    imported: Mapping[str, Imported]
    """The result of `sft_shards.trainer.doctor.imports.gather`."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    python: tuple[int, int, int] = sys.version_info[:3]
    root: Path = Path("/")
    limit: Callable[[int], int] = _soft_limit
    """Soft limit of a `resource.RLIMIT_…`; -1: none."""
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    access: Callable[[Path, int], bool] = os.access
    resolve: Callable[[str], str] = _resolve
    """Address of a host name; raises OSError if it has none."""
    cores: Callable[[], int] = _cores
    """Cores that this process may use."""
    trial: Callable[[Iterable[str]], dict[str, str]] = failures
    """Tries kinds of attention on a GPU, see `sft_shards.trainer.isolation.trial.failures`."""

    def path(self, name: str) -> Path:
        """Return an absolute path below `root`."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """Return the contents of a small text file, stripped; "" if it cannot be read."""
        try:
            return self.path(name).read_text("utf-8", "replace").strip()
        except OSError:
            return ""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none if it cannot be read."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def mount(self, path: Path) -> Mount:
        """Return the file system that holds a path: the last one mounted at the longest mount point above it."""
        real = os.path.realpath(path)
        best = Mount(point="", kind="")
        for line in self.read("/proc/self/mountinfo").splitlines():
            fields, dash, source = line.partition(" - ")
            if not dash:
                continue
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split()[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best.point):
                best = Mount(point=point, kind=source.split()[0])
        return best

    def gpus(self) -> list[Gpu]:
        """Return the GPUs that torch sees."""
        return [Gpu(**device) for device in self.imported["gpus"].facts.get("devices", ())]

    def amd_gpus(self) -> list[str]:
        """Return the architecture of each AMD GPU that the kernel driver knows, such as gfx942, without torch."""
        found = []
        for node in self.names("/sys/class/kfd/kfd/topology/nodes"):
            text = self.read(f"/sys/class/kfd/kfd/topology/nodes/{node}/properties")
            version = int((re.search(r"^gfx_target_version (\d+)$", text, re.M) or [0, 0])[1])
            if version:  # 90402 is gfx942, 90010 is gfx90a; a CPU has 0
                found.append(f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}")
        return found

    def available_memory(self) -> int:
        """Return the bytes that processes and the page cache can still use, within the container's limit."""
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", self.read("/proc/meminfo"), re.M)
        free = int(found[1]) * 1024 if found else 0
        top = self.read("/sys/fs/cgroup/memory.max")
        return min(free, int(top)) if top.isdigit() else free


def format_bytes(size: int) -> str:
    """Return a number of bytes for people, such as 192.0 GiB."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
