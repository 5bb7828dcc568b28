"""What can be said of a machine's GPUs without importing torch, which takes seconds."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

DEVICES = ("/dev/kfd", "/dev/nvidiactl", "/dev/dxg")
"""One of these is there where torch can find a GPU: of AMD, of NVIDIA, of either under WSL."""


def count() -> int:
    """Return how many GPUs torch can use. It is imported only on a machine that has any."""
    if "torch" not in sys.modules and not any(Path(device).exists() for device in DEVICES):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def hip_version() -> str | None:
    """Return `torch.version.hip` of the installed torch: its version of HIP, or None if it is not for AMD GPUs."""
    if (torch := sys.modules.get("torch")) is not None:
        found: str | None = torch.version.hip
        return found
    spec = importlib.util.find_spec("torch")
    assert spec is not None, "compat.check_installed comes first"
    assert spec.submodule_search_locations, "torch is a package"
    return runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "version.py"))["hip"]  # type: ignore[no-any-return]
