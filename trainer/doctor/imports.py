"""What can be imported here, found out in a process of its own: `python -m trainer.doctor.imports FILE`.

A broken ROCm installation does not raise on import, it aborts or hangs, and Megatron's import is slow and noisy. So
a child imports one subject after the other and writes a line for each into FILE; when it dies, the subject that it
had begun is the one to blame, and another child goes on with the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 180.0
"""How long a child may take; imports from a cold network file system are slow."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of one subject."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the functions below return; empty where the import failed."""
    failure: str = ""
    """Why it failed, in one line; "" where it worked."""
    missing: bool = False
    """It failed because it is not installed."""
    died: bool = False
    """It took the process with it, or gave no answer; nobody who imports it can catch that."""


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
        reason = _words(error)
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
        facts["failure"] = _words(error)
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


def gather(seconds: float = SECONDS, environ: Mapping[str, str] | None = None) -> dict[str, Imported]:
    """What came of every subject.

    Args:
        seconds: after which a child is given up.
        environ: the children's environment; None is this process's.
    """
    with tempfile.TemporaryDirectory(prefix="sft-train-doctor-") as folder:
        answers = Path(folder, "answers")
        answers.touch()
        while True:
            end = _child(answers, seconds, environ)
            found = _read(answers)
            rest = [name for name in SUBJECTS if name not in found]
            if not rest:
                return {name: found[name] for name in SUBJECTS}
            _write(answers, rest[0], failure=end, died=True)


def _child(answers: Path, seconds: float, environ: Mapping[str, str] | None) -> str:
    """Run a child until it ends, and say how it did."""
    command = [sys.executable, "-W", "ignore", "-m", "trainer.doctor.imports", str(answers)]
    noise = answers.with_name("noise")
    with open(noise, "wb") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=dict(os.environ if environ is None else environ),
        )
        try:
            end = _ended(child.wait(seconds))
        except subprocess.TimeoutExpired:
            end = f"no answer within {seconds:g} s"
            _kill(child)
        except BaseException:
            _kill(child)
            raise
    lines = noise.read_text("utf-8", "replace").strip().splitlines()
    return f"{end} ({' '.join(lines[-1].split())[:160]})" if lines else end


def _read(answers: Path) -> dict[str, Imported]:
    lines = answers.read_text("utf-8").splitlines()
    return {name: Imported(**fields) for name, fields in map(json.loads, lines)}


def _write(answers: Path, subject: str, **fields: Any) -> None:
    with open(answers, "a", encoding="utf-8") as file:
        file.write(json.dumps([subject, fields]) + "\n")


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # it waits inside a driver: it is left behind
        child.wait(5)


def _ended(code: int) -> str:
    if code >= 0:
        return f"the import ended the process with exit status {code}"
    try:
        return f"the import ended in {signal.Signals(-code).name}"
    except ValueError:
        return f"the import ended in signal {-code}"


def _words(error: BaseException) -> str:
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


def main(answers: Path) -> int:
    """Import what has no line in `answers` yet, and write [subject, fields of `Imported`] as a line after each."""
    for name, look in SUBJECTS.items():
        found = _read(answers)
        need = NEEDS.get(name, "")
        if name in found:
            continue
        if need and found[need].failure:
            _write(answers, name, failure=f"not tried, because {need} cannot be imported")
            continue
        try:
            _write(answers, name, facts=look())
        except ModuleNotFoundError as error:
            _write(answers, name, failure=_words(error), missing=_is(name, error.name or ""))
        except (Exception, SystemExit) as error:  # whatever a broken installation raises
            _write(answers, name, failure=_words(error))
    return 0


def _is(subject: str, module: str) -> bool:
    """Whether the module that was not found is the subject itself, and not something that it imports."""
    own = "megatron.core.datasets.helpers_cpp" if subject == "helpers" else subject
    return module == own or module.startswith(f"{own}.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
