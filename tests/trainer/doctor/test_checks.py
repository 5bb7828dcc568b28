"""Each check of `sft-train doctor` on machines that are not there, in both directions."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from fake_machines import (
    CARD,
    DIED,
    FILES,
    GIB,
    IMPORTED,
    MI300X,
    MISSING,
    PLACE,
    RAISED,
    RDMA,
    bad,
    disk,
    fake,
    only,
)
from toy_runs import random_pairs, write_shards

from sft_shards.trainer.doctor import checks_gpu, checks_network, checks_shards, checks_software, checks_system
from sft_shards.trainer.doctor.examine import CHECKS, examine
from sft_shards.trainer.doctor.imports import Imported
from sft_shards.trainer.doctor.machine import Machine, format_bytes
from sft_shards.trainer.doctor.report import Finding, as_json, as_text, can_train, failing, ok, warning
from sft_shards.trainer.mcore import attention_backends, compat

GPU_FILES = [name for name in FILES if name.startswith(("/dev/kfd", "/dev/dri", "/sys/class/kfd"))]
NO_GPU = {"devices": [], "reason": "RuntimeError: No HIP GPUs are available", "rccl": "2.27.7"}
LANGUAGE_MODULE = "megatron.core.models.common.language_module.language_module"
CUDA = Imported(facts={"version": "2.13.0+cu130", "hip": None, "cuda": "13.0", "nccl": True, "gloo": True})
CPU = Imported(facts={"version": "2.13.0+cpu", "hip": None, "cuda": None, "nccl": False, "gloo": True})


def facts(subject: str, **changed: Any) -> dict[str, Imported]:
    """What was imported, with facts of one subject changed."""
    return {subject: Imported(facts={**IMPORTED[subject].facts, **changed})}


@pytest.mark.unit
@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_a_machine_where_all_is_right(tmp_path: Path, device: str) -> None:
    assert bad(fake(tmp_path, device=device)) == []
    assert bad(fake(tmp_path, device=device, files=RDMA)) == []


@pytest.mark.unit
def test_a_laptop(tmp_path: Path) -> None:
    """Without GPU, Transformer Engine and Apex: rehearsal works, and for a GPU it says that there is none."""
    laptop: dict[str, Any] = {
        "files": dict.fromkeys(GPU_FILES),
        "imported": {"torch": CPU, "gpus": Imported(facts=NO_GPU)}
        | dict.fromkeys(("transformer_engine", "apex", "flash_attn"), MISSING),
    }
    assert bad(fake(tmp_path, device="cpu", **laptop)) == []
    assert bad(fake(tmp_path, **laptop)) == [
        "failing: torch",
        "failing: GPUs",
        "warning: Transformer Engine",
        "warning: Apex",
    ]
    gpus = only(checks_gpu.gpus, fake(tmp_path, **laptop))
    assert "No HIP GPUs" in gpus.found
    assert "--device cpu" in gpus.remedy


@pytest.mark.unit
@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_nothing_is_installed(tmp_path: Path, device: str) -> None:
    """One failing line each for torch, Megatron and psutil, each with what to do; nothing crashes."""
    untried = Imported(failure="not tried, because torch cannot be imported")
    imported = {**dict.fromkeys(IMPORTED, untried), "torch": MISSING, "psutil": MISSING}
    machine = fake(tmp_path, device=device, imported=imported)
    assert bad(machine) == ["failing: torch", "failing: Megatron", "failing: psutil"]
    assert all(found.remedy for found in examine(machine) if found.status != "ok")


@pytest.mark.unit
def test_a_check_that_raises_is_a_finding(tmp_path: Path) -> None:
    def broken_check(machine: Machine) -> list[Finding]:
        raise RuntimeError("no\nsuch thing")

    def limit(kind: int) -> int:
        raise OSError(38, "Function not implemented")

    found = examine(fake(tmp_path), [broken_check, checks_software.python])
    assert [(each.name, each.status) for each in found] == [("broken check", "failing"), ("Python", "ok")]
    assert found[0].found == "the check failed (RuntimeError: no such thing)"
    assert bad(fake(tmp_path, limit=limit)) == ["failing: open files", "failing: locked memory"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("version", "without_megatron", "status", "words"),
    [
        ((3, 9, 18), False, "failing", "3.10 or later"),
        ((3, 10, 13), False, "ok", ""),
        ((3, 11, 7), True, "warning", "needs 3.12"),
        ((3, 13, 0), True, "ok", ""),
        ((3, 14, 0), False, "warning", "nothing later than 3.13"),
    ],
)
def test_python(tmp_path: Path, version: tuple[int, int, int], without_megatron: bool, status: str, words: str) -> None:
    imported = {"megatron": MISSING} if without_megatron else {}
    found = only(checks_software.python, fake(tmp_path, python=version, imported=imported))
    assert found.status == status
    assert words in found.remedy


@pytest.mark.unit
@pytest.mark.parametrize(
    ("it", "device", "status", "words"),
    [
        (IMPORTED["torch"], "gpu", "ok", "built for ROCm, HIP 7.2.1"),
        (IMPORTED["torch"], "cpu", "ok", "2.12.0"),
        (MISSING, "cpu", "failing", "not installed"),
        (RAISED, "gpu", "failing", "libamdhip64.so.7"),
        (DIED, "gpu", "failing", "SIGABRT"),
        (CUDA, "gpu", "failing", "the driver knows 8 AMD GPU(s)"),
        (CPU, "cpu", "ok", "the CPU only"),
        (Imported(facts={**IMPORTED["torch"].facts, "version": "2.4.1"}), "gpu", "warning", "2.4.1"),
    ],
)
def test_torch(tmp_path: Path, it: Imported, device: str, status: str, words: str) -> None:
    gpus = IMPORTED["gpus"] if it.facts.get("hip") else Imported(facts=NO_GPU)
    found = only(checks_software.torch, fake(tmp_path, device=device, imported={"torch": it, "gpus": gpus}))
    assert found.status == status
    assert words in found.found


@pytest.mark.unit
def test_torch_for_another_makers_gpus(tmp_path: Path) -> None:
    machine = fake(tmp_path, files=dict.fromkeys(GPU_FILES), imported={"torch": CUDA})
    assert only(checks_software.torch, machine).status == "warning"
    assert examine(machine, [checks_gpu.driver]) == [], "AMD's driver is nothing to it"


@pytest.mark.unit
def test_hip_and_asynchronous_checkpoints(tmp_path: Path) -> None:
    assert only(checks_software.hip, fake(tmp_path)).status == "ok"
    found = only(checks_software.hip, fake(tmp_path, imported=facts("torch", hip="7.0.51831")))
    assert found.status == "warning"
    assert "--async-save" in found.remedy


@pytest.mark.unit
@pytest.mark.parametrize(
    ("it", "status", "words"),
    [
        (IMPORTED["megatron"], "ok", f"0.16.0rc0 from {PLACE}"),
        (MISSING, "failing", "not installed"),
        (DIED, "failing", "SIGABRT"),
        (facts("megatron", version="0.11.0")["megatron"], "failing", "0.12 or later is needed"),
        (facts("megatron", version="0.20.0")["megatron"], "warning", "newer than any that was tried"),
        (facts("megatron", training="/site-packages")["megatron"], "failing", "training part from /site-packages"),
        (
            facts("megatron", training="", failure="ModuleNotFoundError: No module named 'megatron.training'")[
                "megatron"
            ],
            "failing",
            "No module named 'megatron.training'",
        ),
    ],
)
def test_megatron(tmp_path: Path, it: Imported, status: str, words: str) -> None:
    found = only(checks_software.megatron, fake(tmp_path, imported={"megatron": it}))
    assert found.status == status
    assert words in found.found + found.remedy


@pytest.mark.unit
def test_helpers_are_not_needed(tmp_path: Path) -> None:
    for it, words in ((IMPORTED["helpers"], "built"), (MISSING, "not built")):
        found = only(checks_software.helpers, fake(tmp_path, imported={"helpers": it}))
        assert found.status == "ok"
        assert found.found.startswith(words)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("it", "device", "status", "words"),
    [
        (MISSING, "gpu", "warning", "--transformer-impl local"),
        (MISSING, "cpu", "ok", "not used on the CPU"),
        (RAISED, "gpu", "failing", "libamdhip64"),
        (RAISED, "cpu", "warning", "libamdhip64"),
        (DIED, "cpu", "failing", "SIGABRT"),
    ],
)
def test_transformer_engine(tmp_path: Path, it: Imported, device: str, status: str, words: str) -> None:
    found = only(checks_software.transformer_engine, fake(tmp_path, device=device, imported={"transformer_engine": it}))
    assert found.status == status
    assert words in found.found


@pytest.mark.unit
def test_apex_and_flash_attention(tmp_path: Path) -> None:
    def status(check: Any, **imported: Imported) -> str:
        return only(check, fake(tmp_path, imported=imported)).status

    assert status(checks_software.apex, apex=MISSING) == "ok", "Transformer Engine has what is needed of it"
    assert status(checks_software.apex, apex=MISSING, transformer_engine=MISSING) == "warning"
    assert status(checks_software.flash_attn, flash_attn=MISSING) == "ok"
    assert status(checks_software.flash_attn, flash_attn=RAISED) == "warning"


FUSED = {"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "1"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "device", "status", "words"),
    [
        ({}, "gpu", "ok", "no NVTE"),
        ({"NVTE_FUSED_ATTN": "1"}, "cpu", "ok", "NVTE_FUSED_ATTN=1"),
        (FUSED, "gpu", "ok", "--attention-backend fused"),
        (FUSED, "cpu", "ok", "removed"),
        ({**FUSED, "NVTE_FUSED_ATTN": "0", "NVTE_UNFUSED_ATTN": "1"}, "cpu", "ok", "removed"),
        ({**FUSED, "NVTE_FLASH_ATTN": "1", "NVTE_UNFUSED_ATTN": "0"}, "gpu", "warning", "unset NVTE_FLASH_ATTN NVTE"),
        ({"NVTE_FUSED_ATTN": ""}, "gpu", "warning", "unset NVTE_FUSED_ATTN"),
    ],
)
def test_attention_variables(tmp_path: Path, values: dict[str, str], device: str, status: str, words: str) -> None:
    found = only(checks_software.attention_variables, fake(tmp_path, device=device, environ=values))
    assert found.status == status
    assert words in found.found + found.remedy


@pytest.mark.megatron
def test_attention_variables_are_those_that_megatron_asserts() -> None:
    """The table against the source of the installed Megatron."""
    with compat.quiet():
        module = importlib.import_module(LANGUAGE_MODULE)
    source = inspect.getsource(module.LanguageModule._set_attention_backend)
    for backend, values in attention_backends.BACKENDS.items():
        body = re.split(r"(?:el)?if self\.config\.attention_backend == AttnBackend\.", source)
        (branch,) = [part for part in body if part.startswith(f"{backend}:")]
        said = dict(re.findall(r'"(NVTE_\w+)", (\d)', branch))
        assert tuple(said[name] for name in attention_backends.VARIABLES) == values, backend


@pytest.mark.unit
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/dev/kfd": None}, "8 GPU(s), but no /dev/kfd in here"),
        (dict.fromkeys(GPU_FILES), "no driver"),
        (dict.fromkeys(name for name in GPU_FILES if "dri" in name), "no /dev/dri/renderD*"),
    ],
)
def test_the_driver_and_its_device_files(tmp_path: Path, files: dict[str, None], words: str) -> None:
    machine = fake(tmp_path, files=files, imported=facts("gpus", **NO_GPU))
    found = only(checks_gpu.driver, machine)
    assert found.status == "failing"
    assert words in found.found
    assert "--device" in found.remedy
    seen = dataclasses.replace(machine, imported=IMPORTED)
    assert only(checks_gpu.driver, seen).status == "ok", "torch has found its way to them"


@pytest.mark.unit
def test_device_files_of_a_group_that_the_user_is_not_in(tmp_path: Path) -> None:
    machine = fake(tmp_path, access=lambda path, mode: "renderD" not in path.name, imported=facts("gpus", **NO_GPU))
    gid = (tmp_path / "dev/dri/renderD128").stat().st_gid
    found = only(checks_gpu.driver, machine)
    assert found.status == "failing"
    assert "/dev/dri/renderD128 may not be opened" in found.found
    assert f"--group-add {gid}" in found.remedy


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({}, "ok", "no variable"),
        ({"ROCR_VISIBLE_DEVICES": "4,5,6,7"}, "ok", "4,5,6,7"),
        ({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "0,1"}, "ok", ""),
        ({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "4,5"}, "failing", "no such GPU"),
        ({"HIP_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "0,1"}, "ok", ""),
        ({"HIP_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "2,3"}, "warning", "contradict"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "failing", "hides every GPU"),
        ({"HIP_VISIBLE_DEVICES": "-1"}, "failing", "hides every GPU"),
    ],
)
def test_variables_that_hide_gpus(tmp_path: Path, values: dict[str, str], status: str, words: str) -> None:
    machine = fake(tmp_path, environ=values, imported=facts("gpus", **NO_GPU))
    found = only(checks_gpu.hidden, machine)
    assert found.status == status
    assert words in found.found
    if status == "failing":
        assert only(checks_gpu.hidden, dataclasses.replace(machine, imported=IMPORTED)).status != "failing"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("devices", "status", "words"),
    [
        ([MI300X] * 8, "ok", "8 x gfx942, 192.0 GiB"),
        ([{**MI300X, "arch": "gfx950", "total": 288 * GIB, "free": 288 * GIB}], "ok", "1 x gfx950, 288.0 GiB"),
        ([MI300X, {**MI300X, "arch": "gfx90a"}], "warning", "gfx90a"),
        ([{**MI300X, "arch": "gfx1100"}], "warning", "gfx1100"),
        ([MI300X, {**MI300X, "free": 20 * GIB}], "warning", "on 1 others hold memory (20.0 GiB free)"),
        ([], "failing", "it gives no reason"),
    ],
)
def test_gpus(tmp_path: Path, devices: list[dict[str, Any]], status: str, words: str) -> None:
    found = only(checks_gpu.gpus, fake(tmp_path, imported=facts("gpus", devices=devices)))
    assert found.status == status
    assert words in found.found


@pytest.mark.unit
def test_looking_at_gpus_may_hang(tmp_path: Path) -> None:
    hung = Imported(failure="no answer within 180 s", died=True)
    found = only(checks_gpu.gpus, fake(tmp_path, imported={"gpus": hung}))
    assert (found.status, found.found) == ("failing", "no answer within 180 s")


@pytest.mark.unit
def test_what_the_driver_knows_without_torch(tmp_path: Path) -> None:
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    files = {
        f"{nodes}/1/properties": "gfx_target_version 90500\n",
        f"{nodes}/2/properties": "gfx_target_version 90010\n",
    }
    assert fake(tmp_path, files=files).amd_gpus() == ["gfx950", "gfx90a", *["gfx942"] * 6]


@pytest.mark.unit
def test_rccl(tmp_path: Path) -> None:
    assert only(checks_gpu.rccl, fake(tmp_path)).found == "2.27.7"
    found = only(checks_gpu.rccl, fake(tmp_path, imported=facts("torch", nccl=False)))
    assert (found.name, found.status) == ("RCCL", "failing")


@pytest.mark.unit
def test_packed_attention_is_tried(tmp_path: Path) -> None:
    assert only(checks_gpu.packed_attention, fake(tmp_path)).status == "ok"
    found = only(checks_gpu.packed_attention, fake(tmp_path, trial=lambda kinds: {"te": "it was ended by signal 6"}))
    assert (found.status, found.found) == ("warning", "te fails its trial: it was ended by signal 6")
    without = fake(tmp_path, imported={"transformer_engine": MISSING, "flash_attn": MISSING})
    assert only(checks_gpu.packed_attention, without).found == "torch passes its trial"
    none = fake(tmp_path, trial=lambda kinds: dict.fromkeys(kinds, "it hung"))
    assert only(checks_gpu.packed_attention, none).status == "failing"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("eth", ["eth0", "eth01"]),
        ("=eth0", ["eth0"]),
        ("^lo,eth", ["ib0"]),
        ("^=eth0", ["eth01", "ib0", "lo"]),
        ("ib0:1", ["ib0"]),
        ("wlan0", []),
    ],
)
def test_patterns_of_nccl(pattern: str, names: list[str]) -> None:
    assert checks_network.matching(pattern, ["eth0", "eth01", "ib0", "lo"]) == names


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({}, "ok", "eth0"),
        ({"NCCL_SOCKET_IFNAME": "eth"}, "ok", "eth0"),
        ({"NCCL_SOCKET_IFNAME": "eth1"}, "failing", "NCCL_SOCKET_IFNAME=eth1"),
        ({"GLOO_SOCKET_IFNAME": "eth"}, "failing", "GLOO_SOCKET_IFNAME=eth names no interface that is up (eth0, lo)"),
        ({"GLOO_SOCKET_IFNAME": "lo"}, "ok", "eth0"),
    ],
)
def test_interfaces(tmp_path: Path, values: dict[str, str], status: str, words: str) -> None:
    found = only(checks_network.interfaces, fake(tmp_path, environ=values))
    assert found.status == status
    assert words in found.found


SEVERAL = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("files", "values", "status", "words"),
    [
        ({}, {}, "ok", "one machine alone"),
        ({}, SEVERAL, "warning", "no device"),
        (RDMA, SEVERAL, "ok", "rdma0:1"),
        ({**RDMA, f"{CARD}/state": "1: DOWN"}, SEVERAL, "warning", "no port is active"),
        ({**RDMA, "/dev/infiniband/uverbs0": None}, SEVERAL, "warning", "no /dev/infiniband"),
        (RDMA, {"NCCL_IB_DISABLE": "1"}, "warning", "NCCL_IB_DISABLE=1"),
        (RDMA, {"NCCL_IB_HCA": "mlx5_0"}, "failing", "none of rdma0"),
        (RDMA, {"NCCL_IB_HCA": "rdma0:1"}, "ok", "rdma0:1"),
        (RDMA, {"NCCL_IB_GID_INDEX": "1"}, "warning", "no RoCE v2 address at index 1"),
        ({**RDMA, f"{CARD}/gids/3": "0000:0000:0000:0000:0000:0000:0000:0000"}, {}, "warning", "at index 3"),
        ({**RDMA, f"{CARD}/link_layer": "InfiniBand"}, {"NCCL_IB_GID_INDEX": "1"}, "ok", "rdma0:1"),
    ],
)
def test_rdma(tmp_path: Path, files: dict[str, Any], values: dict[str, str], status: str, words: str) -> None:
    machine = fake(tmp_path, files=files, environ=values)
    if files.get("/dev/infiniband/uverbs0", "") is None:
        (tmp_path / "dev/infiniband").rmdir()
    found = only(checks_network.rdma, machine)
    assert found.status == status
    assert words in found.found


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({}, "ok", "this machine alone"),
        ({"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, "ok", "localhost"),
        (SEVERAL, "ok", "NODE_RANK=1"),
        ({"NNODES": "2"}, "warning", "half"),
        ({"NNODES": "2", "MASTER_ADDR": "n1"}, "warning", "half"),
        ({"MASTER_ADDR": "n1"}, "warning", "NNODES is not above 1"),
        ({**SEVERAL, "NODE_RANK": "2"}, "failing", "NODE_RANK is not a number from 0 to 1"),
        ({**SEVERAL, "NNODES": "two"}, "failing", "NNODES is not a number"),
        ({**SEVERAL, "MASTER_PORT": "70000"}, "failing", "MASTER_PORT is not a number from 1 to 65535"),
        ({**SEVERAL, "MASTER_ADDR": "nowhere"}, "failing", "MASTER_ADDR=nowhere: unknown"),
    ],
)
def test_several_machines(tmp_path: Path, values: dict[str, str], status: str, words: str) -> None:
    def resolve(host: str) -> str:
        if host == "nowhere":
            raise OSError(-2, "unknown")
        return "10.0.0.1"

    found = only(checks_network.rendezvous, fake(tmp_path, environ=values, resolve=resolve))
    assert found.status == status
    assert words in found.found


@pytest.mark.unit
def test_shared_memory(tmp_path: Path) -> None:
    def none(path: Path) -> os.statvfs_result:
        raise FileNotFoundError(path)

    small = only(checks_system.shared_memory, fake(tmp_path, statvfs=lambda path: disk(64)))
    assert (small.status, small.found) == ("warning", "/dev/shm, 64.0 MiB")
    assert "--shm-size" in small.remedy
    assert only(checks_system.shared_memory, fake(tmp_path, statvfs=lambda path: disk(1024))).status == "ok"
    assert only(checks_system.shared_memory, fake(tmp_path, statvfs=none)).status == "failing"


@pytest.mark.unit
def test_limits(tmp_path: Path) -> None:
    limits = {resource.RLIMIT_NOFILE: 1024, resource.RLIMIT_MEMLOCK: 8 << 20}
    small = fake(tmp_path, limit=limits.__getitem__)
    assert only(checks_system.open_files, small).status == "warning"
    assert only(checks_system.locked_memory, small).status == "ok", "nothing pins its buffers"
    assert only(checks_system.locked_memory, fake(tmp_path, limit=limits.__getitem__, files=RDMA)).status == "warning"
    assert only(checks_system.open_files, fake(tmp_path, limit=lambda kind: 4096)).status == "ok"


@pytest.mark.unit
def test_numa_balancing_and_cores(tmp_path: Path) -> None:
    for text, status in (("1", "warning"), ("0", "ok"), (None, "ok")):
        machine = fake(tmp_path, files={"/proc/sys/kernel/numa_balancing": text})
        assert only(checks_system.numa_balancing, machine).status == status
    assert only(checks_system.cores, fake(tmp_path, cores=lambda: 7)).status == "warning"
    assert only(checks_system.cores, fake(tmp_path, cores=lambda: 8)).status == "ok"


@pytest.mark.unit
def test_cache(tmp_path: Path) -> None:
    machine = fake(tmp_path)
    found = only(checks_system.cache, machine)
    assert (found.status, found.found) == ("ok", f"{tmp_path / 'cache'} (overlay), 64.0 GiB free")
    assert not (tmp_path / "cache").exists(), "it is looked at, not made"
    shut = only(checks_system.cache, dataclasses.replace(machine, access=lambda path, mode: False))
    assert shut.status == "failing"
    assert "--cache-dir" in shut.remedy
    assert only(checks_system.cache, dataclasses.replace(machine, statvfs=lambda path: disk(100))).status == "warning"
    (tmp_path / "cache").write_text("a file")
    assert only(checks_system.cache, machine).status == "failing"


@pytest.mark.unit
def test_where_a_path_lies(tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    mounts = (
        "20 1 0:1 / / rw - overlay overlay rw\n"
        f"21 20 0:2 / {tmp_path} rw,relatime shared:1 - ext4 /dev/sda rw\n"
        f"22 21 0:3 / {tmp_path}/my\\040data rw - nfs4 server:/x rw\n"
        f"23 21 0:4 / {tmp_path}/my rw - lustre server:/x rw\n"
    )
    machine = fake(tmp_path, files={"/proc/self/mountinfo": mounts})
    assert machine.mount(tmp_path / "my data/shards").kind == "nfs4"
    assert machine.mount(tmp_path / "mydata").kind == "ext4"
    assert machine.mount(Path("/elsewhere")).kind == "overlay"
    assert fake(tmp_path, files={"/proc/self/mountinfo": None}).mount(tmp_path).kind == ""


@pytest.mark.unit
def test_shards(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "data", {"train": random_pairs(6, seed=1)})
    other = write_shards(
        tmp_path / "other", {"train": random_pairs(3, seed=1)}, vocabulary={f"x{i}": i for i in range(120)}, name="x"
    )

    def lies_on(kind: str, memory: int) -> Finding:
        files = {
            "/proc/self/mountinfo": f"20 1 0:1 / / rw - {kind} x rw\n",
            "/proc/meminfo": f"MemAvailable: {memory} kB\n",
        }
        return only(checks_shards.shards, fake(tmp_path / "root", shards=(f"{path}:0.5",), files=files))

    assert lies_on("ext4", 0).status == "ok"
    assert lies_on("nfs4", 1 << 20).status == "ok"
    assert "6 conversations" in lies_on("nfs4", 1 << 20).found
    assert lies_on("nfs4", 0).status == "warning"
    assert lies_on("fuse.s3fs", 1 << 20).status == "warning"

    both = examine(fake(tmp_path / "root", shards=(str(path), str(other))), [checks_shards.shards])
    assert [each.status for each in both] == ["ok", "ok", "failing"]
    assert "tokenized with x" in both[2].found
    assert both[2].remedy == "tokenize both with the tokenizer of the model"


@pytest.mark.unit
def test_shards_that_do_not_open(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "data", {"train": random_pairs(6, seed=1)})
    with open(path / "train/tokens/00000.bin", "ab") as file:
        file.write(b"\0")
    found = only(checks_shards.shards, fake(tmp_path / "root", shards=(str(path),)))
    assert found.status == "failing"
    assert "cut off or appended" in found.found + found.remedy
    found = only(checks_shards.shards, fake(tmp_path / "root", shards=(str(tmp_path / "none"),)))
    assert found.status == "failing"
    assert "no such shard directory" in found.found + found.remedy


@pytest.mark.unit
def test_memory_of_a_container(tmp_path: Path) -> None:
    assert fake(tmp_path).available_memory() == 1_500_000_000 * 1024
    assert fake(tmp_path, files={"/sys/fs/cgroup/memory.max": "4096"}).available_memory() == 4096


@pytest.mark.unit
def test_the_report() -> None:
    findings = [ok("Python", "3.12.3"), warning("HIP", "7.0", "wait"), failing("GPUs", "none", "buy one")]
    assert as_text(findings, device="gpu", colour=False).split("\n") == [
        "ok       Python  3.12.3",
        "warning  HIP     7.0",
        "                 → wait",
        "failing  GPUs    none",
        "                 → buy one",
        "This machine cannot train with --device gpu: 1 failing, 1 warning(s), 1 ok.",
    ]
    assert "\x1b[31mfailing\x1b[0m" in as_text(findings, device="gpu", colour=True)
    assert (can_train(findings), can_train(findings[:2])) == (False, True)
    assert as_json(findings[1:2], device="cpu") == {
        "device": "cpu",
        "can_train": True,
        "findings": [{"name": "HIP", "status": "warning", "found": "7.0", "remedy": "wait"}],
    }


@pytest.mark.unit
def test_amounts() -> None:
    assert [format_bytes(size) for size in (0, 1023, 64 << 20, 192 * GIB, 3 << 50)] == [
        "0 B",
        "1023 B",
        "64.0 MiB",
        "192.0 GiB",
        "3.0 PiB",
    ]


@pytest.mark.unit
def test_every_check_of_the_package_is_in_the_report() -> None:
    """A function from a Machine to findings that nobody calls would be a check that is never made."""
    modules = (checks_gpu, checks_network, checks_shards, checks_software, checks_system)
    written = {
        value
        for module in modules
        for value in vars(module).values()
        if getattr(value, "__module__", "") == module.__name__
        and getattr(value, "__annotations__", {}) == {"machine": "Machine", "return": "list[Finding]"}
    }
    assert written == set(CHECKS)
