"""Import each package that training can use, and return facts about it as JSON values.

Only `sft_shards.trainer.doctor.imports` calls these functions, in a process of its own, because an import may abort or
hang. Each function raises what its import raises; its docstring names its facts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def torch() -> dict[str, Any]:
    """`version`; `hip` and `cuda`: what it was built for, str or None; `nccl` and `gloo`: available backends, bool."""
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
    """`devices`: `name`, `arch`, bytes `free` and `total` of each GPU; `reason`: why none is seen; `rccl`: version."""
    import torch

    cuda: Any = torch.cuda
    try:
        cuda.init()
        reason = ""
    except Exception as error:  # torch raises AssertionError, RuntimeError and its own, by build
        reason = one_line(error)
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
    """`version`; the PyTorch part is imported, because that is what breaks."""
    import transformer_engine.pytorch  # noqa: F401

    return {"version": _version("transformer-engine", "transformer-engine-rocm-torch", "transformer_engine")}


def apex() -> dict[str, Any]:
    """`version`; `wgrad`, bool: the kernel of --gradient-accumulation-fusion is installed."""
    import apex.optimizers  # noqa: F401 - another package on the index is called apex and has no such module

    return {
        "version": _version("apex"),
        "wgrad": importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
    }


def flash_attn() -> dict[str, Any]:
    """`version`."""
    import flash_attn

    return {"version": str(flash_attn.__version__)}


def megatron() -> dict[str, Any]:
    """`version`; `core` and `training`, the folders of its two parts; `failure`: why `training` cannot be imported."""
    import megatron.core

    facts = {"version": str(megatron.core.__version__), "core": _folder(megatron.core), "training": "", "failure": ""}
    try:
        training: Any = importlib.import_module("megatron.training")
        facts["training"] = _folder(training)
        assert callable(training.pretrain)
    except Exception as error:  # whatever a broken installation raises
        facts["failure"] = one_line(error)
    return facts


def helpers() -> dict[str, Any]:
    """No facts: whether Megatron's C++ data set helpers can be imported."""
    importlib.import_module("megatron.core.datasets.helpers_cpp")
    return {}


def psutil() -> dict[str, Any]:
    """`version`."""
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
"""What a subject needs: it is not imported if that failed."""


def one_line(error: BaseException) -> str:
    """Return an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _folder(module: Any) -> str:
    """Return the folder that holds the package `megatron`."""
    return str(Path(next(iter(module.__path__))).parent.parent)


def _version(*names: str) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
