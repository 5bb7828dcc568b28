"""Checks of what several machines communicate through: interfaces, RDMA devices, and the variables that name them.

NCCL_SOCKET_IFNAME and NCCL_IB_HCA are read as in NCCL's documentation, which RCCL follows: a list of names or their
beginnings; a leading `^` means all but these, a leading `=` whole names.
"""

from __future__ import annotations

from collections.abc import Sequence

from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.doctor.report import Finding, failing, ok, warning

RDMA = "/sys/class/infiniband"
GID_INDEX = "3"
"""The NCCL_IB_GID_INDEX that RoCE v2 has on AMD's machines; trainer/launch/amd.py sets it."""


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Return those of `names` that NCCL takes for a pattern such as `eth`, `=eth0`, `^docker,lo` or `mlx5_0:1`."""
    exclude, exact = pattern.startswith("^"), pattern.lstrip("^").startswith("=")
    wanted = [part.partition(":")[0] for part in pattern.lstrip("^=").split(",") if part]

    def named(name: str) -> bool:
        return name in wanted if exact else any(name.startswith(part) for part in wanted)

    return [name for name in names if named(name) != exclude]


def nodes(machine: Machine) -> int:
    """Return NNODES; 1 if it is not set or not a number."""
    value = machine.environ.get("NNODES", "")
    return int(value) if value.isdigit() else 1


def interfaces(machine: Machine) -> list[Finding]:
    """Check that the variables that choose network interfaces choose one that is up."""
    name = "network"
    states = {each: machine.read(f"/sys/class/net/{each}/operstate") for each in machine.names("/sys/class/net")}
    up = [each for each, state in states.items() if state in ("up", "unknown")]
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        value = machine.environ.get(variable, "")
        exactly = f"={value}" if variable.startswith("GLOO") else value
        if value and not matching(exactly, up):
            there = ", ".join(up) or "none"
            return [failing(name, f"{variable}={value} names no interface that is up ({there})", f"unset {variable}")]
    others = [each for each in up if each != "lo"]
    return [ok(name, ", ".join(others) if others else "no interface but lo: this machine alone")]


def rdma(machine: Machine) -> list[Finding]:
    """Check for an RDMA device with an active port that is not disabled, and its RoCE v2 address at the GID index."""
    if machine.device != "gpu":
        return []
    name, several = "RDMA", nodes(machine) > 1
    devices = machine.names(RDMA)
    if not devices:
        if not several:
            return [ok(name, "no device; one machine alone needs none")]
        remedy = "load the driver of the network card on the host; without RDMA several machines train much slower"
        return [warning(name, "no device", remedy)]
    active = [
        (each, port)
        for each in devices
        for port in machine.names(f"{RDMA}/{each}/ports")
        if machine.read(f"{RDMA}/{each}/ports/{port}/state").endswith("ACTIVE")
    ]
    if not active:
        return [warning(name, f"{', '.join(devices)}: no port is active", "see 'ibstat'; ask who runs the network")]
    if not machine.path("/dev/infiniband").exists():
        return [warning(name, "devices, but no /dev/infiniband in here", "give the container --device /dev/infiniband")]
    if machine.environ.get("NCCL_IB_DISABLE") == "1":
        return [warning(name, f"{len(active)} active port(s), but NCCL_IB_DISABLE=1", "unset NCCL_IB_DISABLE")]
    chosen = machine.environ.get("NCCL_IB_HCA", "")
    if chosen and not matching(chosen, devices):
        return [failing(name, f"NCCL_IB_HCA={chosen} is none of {', '.join(devices)}", "unset NCCL_IB_HCA")]
    index = machine.environ.get("NCCL_IB_GID_INDEX", GID_INDEX)
    for each, port in active:
        folder = f"{RDMA}/{each}/ports/{port}"
        if machine.read(f"{folder}/link_layer") != "Ethernet":
            continue
        if machine.read(f"{folder}/gids/{index}").strip("0:") and _roce_v2(machine, folder, index):
            continue
        there = [number for number in machine.names(f"{folder}/gid_attrs/types") if _roce_v2(machine, folder, number)]
        remedy = f"set NCCL_IB_GID_INDEX to one of {', '.join(there)}" if there else "ask who runs the network"
        return [warning(name, f"{each} has no RoCE v2 address at index {index}", remedy)]
    return [ok(name, ", ".join(f"{each}:{port}" for each, port in active))]


def _roce_v2(machine: Machine, folder: str, index: str) -> bool:
    return machine.read(f"{folder}/gid_attrs/types/{index}") == "RoCE v2"


def rendezvous(machine: Machine) -> list[Finding]:
    """Check that either all or none of the variables are set that number the machines."""
    name = "several machines"
    given = {
        each: machine.environ[each]
        for each in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
        if machine.environ.get(each)
    }
    if not given:
        return [ok(name, "no variable says so: this machine alone")]
    text = ", ".join(f"{each}={value}" for each, value in given.items())
    for each, least, most in (("NNODES", 1, 2**20), ("NODE_RANK", 0, nodes(machine) - 1), ("MASTER_PORT", 1, 65535)):
        value = given.get(each, str(least))
        if not value.isdigit() or not least <= int(value) <= most:
            return [failing(name, f"{text}: {each} is not a number from {least} to {most}", f"set {each}, or unset it")]
    if nodes(machine) > 1:
        missing = [each for each in ("NODE_RANK", "MASTER_ADDR") if each not in given]
        if missing:
            remedy = f"set {' and '.join(missing)}; MASTER_ADDR is the same on every machine"
            return [warning(name, f"{text}: half of what is needed", remedy)]
    elif given.get("MASTER_ADDR", "localhost") not in ("localhost", "127.0.0.1", "::1"):
        return [warning(name, f"{text}, but NNODES is not above 1", "set NNODES and NODE_RANK, or unset MASTER_ADDR")]
    host = given.get("MASTER_ADDR", "")
    if host:
        try:
            machine.resolve(host)
        except OSError as error:
            return [failing(name, f"MASTER_ADDR={host}: {error.strerror or error}", "name a host that this one knows")]
    return [ok(name, text)]
