"""Checks of Python, torch, Megatron and the packages with kernels, and what replaces a missing package.

The replacements are chosen in trainer/model/provider.py (layers), trainer/resolve.py (flags) and
trainer/isolation/choose.py (attention). trainer/mcore/ holds what is known of versions: `compat` of Megatron, `hip` of
HIP, and `attention_backends` of the `NVTE_*` variables that Megatron asserts.
"""

from __future__ import annotations

from sft_shards.trainer.doctor.imports import Imported
from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.doctor.report import Finding, failing, ok, warning
from sft_shards.trainer.mcore import attention_backends
from sft_shards.trainer.mcore import hip as hip_versions
from sft_shards.trainer.mcore.compat import INSTALL, NEWEST, OLDEST, ROCM_TORCH, parse_version, support

OLDEST_TORCH = (2, 6)
"""As in setup.cfg."""
NEWEST_PYTHON = (3, 13)
IMAGE = "use AMD's image, see docs/image.md"


def python(machine: Machine) -> list[Finding]:
    """Check that Python is old enough to have been tried and new enough for Megatron's wheel."""
    text = ".".join(map(str, machine.python))
    version = machine.python[:2]
    if version < (3, 10):
        return [failing("Python", text, "Python 3.10 or later is needed")]
    if version > NEWEST_PYTHON:
        known = ".".join(map(str, NEWEST_PYTHON))
        return [warning("Python", text, f"nothing later than {known} was tried; use that where something breaks")]
    if version < (3, 12) and machine.imported["megatron"].failure:
        return [
            warning("Python", text, "megatron-core's wheel with pretrain() needs 3.12; a Megatron-LM checkout does not")
        ]
    return [ok("Python", text)]


def torch(machine: Machine) -> list[Finding]:
    """Check that torch can be imported, and was built for this machine's GPUs."""
    it = machine.imported["torch"]
    if it.failure:
        cpu = ROCM_TORCH.replace("rocm7.2", "cpu")
        remedy = f"install ROCm's build: {ROCM_TORCH}; or {IMAGE}" if machine.device == "gpu" else cpu
        return [failing("torch", _reason(it), remedy)]
    version, hip, cuda = it.facts["version"], it.facts["hip"], it.facts["cuda"]
    built = f"ROCm, HIP {hip}" if hip else f"CUDA {cuda}" if cuda else "the CPU only"
    found = f"{version}, built for {built}"
    if machine.device == "gpu" and not hip:
        remedy = f"install ROCm's build: {ROCM_TORCH}; or {IMAGE}"
        if machine.amd_gpus() and not machine.gpus():
            return [failing("torch", f"{found}; the driver knows {len(machine.amd_gpus())} AMD GPU(s)", remedy)]
        return [(warning if cuda else failing)("torch", found, f"for AMD GPUs {remedy}")]
    if (parse_version(version) or OLDEST_TORCH) < OLDEST_TORCH:
        return [warning("torch", found, f"nothing older than {'.'.join(map(str, OLDEST_TORCH))} was tried; update it")]
    return [ok("torch", found)]


def hip(machine: Machine) -> list[Finding]:
    """Warn of a HIP that crashes in asynchronous checkpoints."""
    version = machine.imported["torch"].facts.get("hip")
    if machine.device != "gpu" or not version:
        return []
    if not hip_versions.forks_safely(version):
        first = ".".join(map(str, hip_versions.FORK_SAFE))
        return [warning("HIP", version, f"below {first} --async-save crashes (pinned memory and fork); leave it out")]
    return [ok("HIP", version)]


def megatron(machine: Machine) -> list[Finding]:
    """Check Megatron's version, that it has `pretrain()`, and that both of its parts are of one installation."""
    it = machine.imported["megatron"]
    remedy = f"{INSTALL} (Python 3.12 or later), or put a Megatron-LM checkout on PYTHONPATH"
    if it.failure:
        return [failing("Megatron", _reason(it), remedy)]
    version, core, training = it.facts["version"], it.facts["core"], it.facts["training"]
    found = f"{version} from {core}"
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST))
    if it.facts["failure"]:
        why = f"{found}; megatron.training, which has pretrain(), cannot be imported: {it.facts['failure']}"
        return [failing("Megatron", why, remedy)]
    if training != core:
        return [failing("Megatron", f"{found}, but its training part from {training}", "remove one of the two")]
    supported = support(version)
    if supported == "too old":
        return [failing("Megatron", found, f"{oldest} or later is needed")]
    if supported == "untested":
        return [warning("Megatron", found, f"newer than any that was tried; use {newest} where something breaks")]
    return [ok("Megatron", found)]


def helpers(machine: Machine) -> list[Finding]:
    """Report whether Megatron's C++ helpers are built; only its own data sets need them."""
    if machine.imported["megatron"].failure:
        return []
    failure = machine.imported["helpers"].failure
    return [ok("Megatron's C++ helpers", "not built, and not needed" if failure else "built, and not needed")]


def psutil(machine: Machine) -> list[Finding]:
    """Check for psutil: Megatron's checkpoint writer imports it, but its wheel does not require it."""
    it = machine.imported["psutil"]
    if it.failure:
        return [failing("psutil", _reason(it), "pip install psutil: Megatron writes checkpoints with it")]
    return [ok("psutil", it.facts["version"])]


def transformer_engine(machine: Machine) -> list[Finding]:
    """Check Transformer Engine: packed attention and fused layers, which Megatron's own layers replace."""
    it, name = machine.imported["transformer_engine"], "Transformer Engine"
    if machine.imported["torch"].failure:
        return []
    if not it.failure:
        return [ok(name, it.facts["version"] + (", not used on the CPU" if machine.device == "cpu" else ""))]
    if machine.device == "cpu" and it.missing:
        return [ok(name, "not installed, and not used on the CPU")]
    if it.missing:
        falls = "not installed: --transformer-impl local, a dense mask for packed conversations, no fused layers"
        return [warning(name, falls, IMAGE)]
    remedy = "remove it, or install the build for this torch: it is used wherever it is found"
    if machine.device == "cpu" and not it.died:  # Megatron catches it and goes on without
        return [warning(name, it.failure, remedy)]
    return [failing(name, it.failure, remedy)]


def apex(machine: Machine) -> list[Finding]:
    """Check Apex: fused optimizer, norms and gradient accumulation, if Transformer Engine is missing."""
    it = machine.imported["apex"]
    if machine.device != "gpu" or machine.imported["torch"].failure:
        return []
    if not it.failure:
        wgrad = "" if it.facts["wgrad"] else ", without the kernel of --gradient-accumulation-fusion"
        return [ok("Apex", it.facts["version"] + wgrad)]
    if not machine.imported["transformer_engine"].failure:
        return [ok("Apex", "not installed; Transformer Engine has what is needed of it")]
    falls = f"{_reason(it)}: torch's AdamW and norms, no fused gradient accumulation"
    return [warning("Apex", falls, IMAGE)]


def flash_attn(machine: Machine) -> list[Finding]:
    """Check flash-attn, which only one of Transformer Engine's attention backends needs."""
    it = machine.imported["flash_attn"]
    if machine.device != "gpu" or machine.imported["torch"].failure:
        return []
    if it.missing:
        return [ok("flash-attn", "not installed; only --attention-backend flash needs it")]
    if it.failure:
        return [warning("flash-attn", it.failure, "use --attention-backend fused, or install the build for this torch")]
    return [ok("flash-attn", it.facts["version"])]


def attention_variables(machine: Machine) -> list[Finding]:
    """Check that the NVTE variables, which images set, agree with --attention-backend (`auto` if it is not given).

    Megatron asserts it. On AMD GPUs trainer/launch/amd.py removes the variables and gives the flag; on the CPU
    trainer/launch/cpu.py removes them.
    """
    name = "attention backend"
    given = {each: machine.environ[each] for each in attention_backends.VARIABLES if each in machine.environ}
    text = ", ".join(f"{variable}={value}" for variable, value in given.items())
    fitting = attention_backends.agreeing(given)
    if "auto" in fitting:
        return [ok(name, text or "no NVTE_…_ATTN in the environment")]
    if machine.device == "cpu":
        return [ok(name, f"{text}: removed from the environment")]
    unset = f"unset {' '.join(given)}"
    if not fitting:
        return [warning(name, f"{text} fits no --attention-backend", f"{unset}, and choose with --attention-backend")]
    if machine.imported["torch"].facts.get("hip"):
        return [ok(name, f"{text}: stands for --attention-backend {fitting[0]}")]
    return [warning(name, f"{text} does not fit the default", f"{unset}, or add --attention-backend {fitting[0]}")]


def _reason(it: Imported) -> str:
    return "not installed" if it.missing else it.failure
