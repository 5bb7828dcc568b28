"""Checks of the GPUs: driver, device files, what torch sees, and variables that hide GPUs.

Sources: AMD's pages on Docker containers (device files, groups) and GPU isolation (the variables), rocm.docs.amd.com.
Nothing here was run on a machine with an AMD GPU.
"""

from __future__ import annotations

import grp
import os

from sft_shards.trainer.doctor.machine import Machine, format_bytes
from sft_shards.trainer.doctor.report import Finding, failing, ok, warning
from sft_shards.trainer.isolation.kernels import KINDS, TE

KNOWN = {"gfx942": "MI300X, MI325X", "gfx950": "MI350X, MI355X"}
"""Architectures that the recipes in configs/ are written for, with names of their GPUs."""
HIDING = ("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
"""Variables that hide GPUs from a process."""
REHEARSE = "or rehearse with --device cpu"
"""The last part of every remedy for a machine without a GPU."""


def driver(machine: Machine) -> list[Finding]:
    """Check AMD's kernel driver and the permissions of its device files, if torch sees no GPU."""
    facts = machine.imported["torch"].facts
    if machine.device != "gpu" or (facts and not facts["hip"] and not machine.amd_gpus()):
        return []  # torch is built for something else; its own line says so
    name, known = "AMD driver", machine.amd_gpus()
    if machine.gpus():
        return [ok(name, f"{len(known)} GPU(s) on this machine")]
    if not machine.path("/dev/kfd").exists():
        if known:
            remedy = "start the container with --device /dev/kfd --device /dev/dri"
            return [failing(name, f"{len(known)} GPU(s), but no /dev/kfd in here", remedy)]
        remedy = f"load the amdgpu driver on the host, give a container --device /dev/kfd --device /dev/dri, {REHEARSE}"
        return [failing(name, "no /dev/kfd: no AMD GPU, no driver, or a container without it", remedy)]
    renders = [f"/dev/dri/{each}" for each in machine.names("/dev/dri") if each.startswith("renderD")]
    if not renders:
        return [failing(name, "/dev/kfd, but no /dev/dri/renderD*", "give the container --device /dev/dri")]
    shut = [each for each in ("/dev/kfd", *renders) if not machine.access(machine.path(each), os.R_OK | os.W_OK)]
    if shut:
        owners = sorted({machine.path(each).stat().st_gid for each in shut})
        groups, options = " and ".join(map(_group, owners)), " ".join(f"--group-add {gid}" for gid in owners)
        remedy = f"add the user to group {groups}, or start the container with {options}"
        return [failing(name, f"{shut[0]} may not be opened by this user", remedy)]
    return [ok(name, f"/dev/kfd and {len(renders)} render device(s); the driver knows {len(known)} GPU(s)")]


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:  # the host's group has no name in the container
        return str(gid)


def hidden(machine: Machine) -> list[Finding]:
    """Check the variables that hide GPUs: whether they hide all of them, or contradict each other.

    An empty variable hides all GPUs from some versions of HIP and torch, and none from others: what torch sees counts.
    """
    if machine.device != "gpu":
        return []
    name = "visible devices"
    given = {each: machine.environ[each] for each in HIDING if each in machine.environ}
    if not given:
        return [ok(name, "no variable hides a GPU")]
    text, seen = ", ".join(f"{each}={value}" for each, value in given.items()), machine.gpus()
    for each, value in given.items():
        if value.strip() in ("", "-1") and not seen:
            return [failing(name, f"{text}: {each} hides every GPU", f"unset {each}")]
    first, second = given.get("HIP_VISIBLE_DEVICES"), given.get("CUDA_VISIBLE_DEVICES")
    if first is not None and second is not None and first != second:
        return [warning(name, f"{text} contradict each other", "unset both; AMD recommends ROCR_VISIBLE_DEVICES")]
    outer = given.get("ROCR_VISIBLE_DEVICES")
    inner = [each for each in given if each != "ROCR_VISIBLE_DEVICES"]
    if outer is not None and inner:
        count = len(outer.split(","))
        numbers = [int(part) for part in given[inner[0]].split(",") if part.strip().isdigit()]
        if any(number >= count for number in numbers):
            remedy = f"unset {inner[0]}: it counts among the {count} GPU(s) that ROCR_VISIBLE_DEVICES leaves"
            return [(warning if seen else failing)(name, f"{text}: no such GPU", remedy)]
    return [ok(name, text)]


def gpus(machine: Machine) -> list[Finding]:
    """Check the GPUs that torch sees: number, architecture, and whether other processes hold their memory."""
    if machine.device != "gpu" or machine.imported["torch"].failure:
        return []
    it = machine.imported["gpus"]
    if it.failure:
        remedy = f"the driver and this torch do not fit each other; update one of them, {REHEARSE}"
        return [failing("GPUs", it.failure, remedy)]
    devices = machine.gpus()
    if not devices:
        why = f"torch sees none ({it.facts['reason'].partition('. ')[0] or 'it gives no reason'})"
        remedy = f"ROCm's build of torch, AMD's driver and its device files must be there: docs/image.md; {REHEARSE}"
        return [failing("GPUs", why, remedy)]
    kinds = sorted({(each.arch or each.name, each.total) for each in devices})
    found = f"{len(devices)} x " + " and ".join(f"{kind}, {format_bytes(total)}" for kind, total in kinds)
    if len({kind for kind, _ in kinds}) > 1:
        return [warning("GPUs", found, "the slowest sets the pace; choose those of one kind with ROCR_VISIBLE_DEVICES")]
    if kinds[0][0] not in KNOWN:
        known = ", ".join(f"{arch} ({names})" for arch, names in KNOWN.items())
        return [warning("GPUs", found, f"the recipes are written for {known}; set memory and batch size by yourself")]
    busy = [number for number, each in enumerate(devices) if each.free < 0.9 * each.total]
    if busy:
        free = min(devices[number].free for number in busy)
        text = f"{found}; on {', '.join(map(str, busy))} others hold memory ({format_bytes(free)} free)"
        return [warning("GPUs", text, "see whose with 'rocm-smi --showpids'")]
    return [ok("GPUs", found)]


def rccl(machine: Machine) -> list[Finding]:
    """Check that torch has RCCL, through which GPUs communicate."""
    facts, it = machine.imported["torch"].facts, machine.imported["gpus"]
    if machine.device != "gpu" or not machine.gpus():
        return []
    if not facts["nccl"]:
        return [failing("RCCL", "this torch is built without it", "install ROCm's build of torch")]
    return [ok("RCCL" if facts["hip"] else "NCCL", it.facts["rccl"] or "of unknown version")]


def packed_attention(machine: Machine) -> list[Finding]:
    """Try the kinds of attention that are installed, as --isolation auto does."""
    if machine.device != "gpu" or not machine.gpus():
        return []
    absent = {TE: "transformer_engine", "flash": "flash_attn"}
    kinds = [kind for kind in KINDS if kind not in absent or not machine.imported[absent[kind]].failure]
    wrong = machine.trial(kinds)
    failed = "; ".join(f"{kind} fails its trial: {why}" for kind, why in wrong.items())
    passed = next((kind for kind in kinds if kind not in wrong), "")
    if not passed:
        return [failing("packed attention", failed, "install a torch whose scaled_dot_product_attention works")]
    if failed:
        return [warning("packed attention", failed, f"--isolation auto takes {passed} instead")]
    return [ok("packed attention", f"{passed} passes its trial")]
