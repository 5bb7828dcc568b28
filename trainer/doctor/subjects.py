"""What is imported to be looked at, and what is told of each: plain values, because they travel as JSON.

Only `trainer.doctor.imports` calls these functions, in a process of its own; each raises what its import raises.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def torch() -> dict[str, Any]:
    """Version, what it was built for, and what `torch.distributed` can talk through."""
    import torch

    distributed: Any = torch.distributed
    return {
        "version": str(torch.__version__),
        "hip": getattr(torch.version, "hip", None),
        "cuda": torch.version.cuda,
        "nccl": bool(distributed.is_available() and distributed.is_nccl_available()),
        "gloo": bool(distributed.is_available() and distributed.is_gloo_available()),
    }


def gpus() -> dict[str, Any]:
    """Every GPU that torch sees with its memory in bytes, and RCCL's version."""
    import torch

    cuda: Any = torch.cuda
    try:
        cuda.init()
        reason = ""
    except Exception as error:  # torch raises AssertionError, RuntimeError and its own, by build
        reason = words(error)
    devices = []
    for number in range(cuda.device_count() if not reason else 0):
        properties: Any = cuda.get_device_properties(number)
        free, total = cuda.mem_get_info(number)
        arch = getattr(properties, "gcnArchName", "").partition(":")[0]
        devices.append({"name": properties.name, "arch": arch, "free": free, "total": total})
    try:
        rccl = ".".join(str(part) for part in cuda.nccl.version())
    except Exception:  # a build without it has no such function
        rccl = ""
    return {"devices": devices, "reason": reason, "rccl": rccl}


def transformer_engine() -> dict[str, Any]:
    """Version; its PyTorch part is what breaks."""
    import transformer_engine.pytorch  # noqa: F401

    return {"version": _version("transformer-engine", "transformer-engine-rocm-torch", "transformer_engine")}


def apex() -> dict[str, Any]:
    """Version, and whether the kernel that adds up gradients is there (`--no-gradient-accumulation-fusion`)."""
    import apex.optimizers  # noqa: F401 - another package on the index is called apex and has no such module

    return {
        "version": _version("apex"),
        "wgrad": importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
    }


def flash_attn() -> dict[str, Any]:
    """Version."""
    import flash_attn

    return {"version": str(flash_attn.__version__)}


def megatron() -> dict[str, Any]:
    """Version, the folders that both of its parts come from, and why its training part cannot be imported."""
    import megatron.core

    facts = {"version": str(megatron.core.__version__), "core": _folder(megatron.core), "training": "", "failure": ""}
    try:
        training: Any = importlib.import_module("megatron.training")
        facts["training"] = _folder(training)
        assert callable(training.pretrain)
    except Exception as error:  # whatever a broken installation raises
        facts["failure"] = words(error)
    return facts


def helpers() -> dict[str, Any]:
    """Megatron's C++ data set helpers."""
    importlib.import_module("megatron.core.datasets.helpers_cpp")
    return {}


def psutil() -> dict[str, Any]:
    """Version."""
    import psutil

    return {"version": psutil.__version__}


SUBJECTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "torch": torch,
    "gpus": gpus,
    "transformer_engine": transformer_engine,
    "apex": apex,
    "flash_attn": flash_attn,
    "megatron": megatron,
    "helpers": helpers,
    "psutil": psutil,
}
NEEDS = dict.fromkeys(("gpus", "transformer_engine", "apex", "flash_attn", "megatron"), "torch") | {
    "helpers": "megatron"
}
"""A subject is not tried where what it needs failed."""


def words(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _folder(module: Any) -> str:
    """The folder that holds `megatron`."""
    return str(Path(next(iter(module.__path__))).parent.parent)


def _version(*names: str) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
