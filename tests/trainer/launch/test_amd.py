"""What AMD GPUs want in the environment: with a reason, and never instead of what the user set."""

from __future__ import annotations

import subprocess

import pytest

from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import amd, environment
from sft_shards.trainer.launch.amd import wanted
from sft_shards.trainer.mcore import attention_backends

JOB = Job(shards=("a",))


def applied(before: dict[str, str], *flags: str, rocm: bool = True) -> dict[str, str]:
    after = dict(before)
    environment.apply(environment.plan(wanted(Job(shards=("a",), flags=flags), before, rocm=rocm), before), after)
    return after


@pytest.mark.unit
def test_what_the_user_set_is_kept() -> None:
    after = applied({"GPU_MAX_HW_QUEUES": "4", "NCCL_CROSS_NIC": ""})
    assert (after["GPU_MAX_HW_QUEUES"], after["NCCL_CROSS_NIC"]) == ("4", "")
    assert after["HSA_NO_SCRATCH_RECLAIM"] == "1"
    assert set(after) == {*amd.MEGATRON, *amd.ROCM}
    assert applied(after) == after


@pytest.mark.unit
def test_other_gpus_get_what_megatron_asserts_and_no_more() -> None:
    assert applied({}, rocm=False) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert applied({"NVTE_FUSED_ATTN": "1"}, rocm=False)["NVTE_FUSED_ATTN"] == "1"


@pytest.mark.unit
def test_every_variable_has_a_reason() -> None:
    every = {**amd.MEGATRON, **amd.ROCM, **amd.DETERMINISTIC, **amd.DETERMINISTIC_ROCM}
    assert len(every) == 17
    assert all(value and len(reason) > 10 for value, reason in every.values())


@pytest.mark.unit
@pytest.mark.parametrize(
    ("before", "flags", "backend"),
    [
        ({}, [], "fused"),
        ({"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "0"}, [], "fused"),
        ({"NVTE_FLASH_ATTN": "1", "NVTE_FUSED_ATTN": "0", "NVTE_UNFUSED_ATTN": "0"}, [], "flash"),
        ({"NVTE_FLASH_ATTN": "1", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "1"}, [], "auto"),
        ({"NVTE_FLASH_ATTN": "0"}, [], "fused"),
        ({"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "0"}, ["--attention-backend=unfused"], "unfused"),
        ({}, ["--attention-backend", "flash", "--bf16"], "flash"),
    ],
)  # fmt: skip
def test_attention_is_chosen_by_megatrons_flag(before: dict[str, str], flags: list[str], backend: str) -> None:
    """Megatron asserts that the variables agree with its flag, which is "auto" where it is not given."""
    job = Job(shards=("a",), flags=tuple(flags))
    assert amd.backend(job, before) == backend
    assert not set(attention_backends.VARIABLES) & set(applied(before, *flags))
    tried = attention_backends.as_environment(backend)
    assert {name: tried[name] for name in attention_backends.VARIABLES if name in tried} == tried
    assert amd.backend(JOB, tried) == backend, "the trial of packed attention tries what is trained with"


@pytest.mark.unit
def test_deterministic_runs() -> None:
    after = applied({}, "--deterministic-mode")
    assert after["NCCL_ALGO"] == "Ring"
    assert after["NVTE_ALLOW_NONDETERMINISTIC_ALGO"] == after["ROCBLAS_DEFAULT_ATOMICS_MODE"] == "0"
    assert applied({"NCCL_ALGO": "Tree"}, "--deterministic-mode")["NCCL_ALGO"] == "Tree"
    in_file = Job(shards=("a",), config={"deterministic_mode": True})
    assert "NCCL_ALGO" in wanted(in_file, {}, rocm=True)
    assert "ROCBLAS_DEFAULT_ATOMICS_MODE" not in wanted(in_file, {}, rocm=False)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("hip", "flags", "warned"),
    [
        ("6.4.43482-0f2d60242", ("--async-save",), True),
        ("7.0.2", ("--async-save",), True),
        ("7.1.0", ("--async-save",), False),
        ("10.0", ("--async-save",), False),
        ("6.4", (), False),
        (None, ("--async-save",), False),
    ],
)
def test_asynchronous_saves_under_an_old_hip(hip: str | None, flags: tuple[str, ...], warned: bool) -> None:
    assert ("pinned memory" in amd.warning(Job(shards=("a",), flags=flags), hip)) is warned


@pytest.mark.process
def test_the_shell_does_what_we_do() -> None:
    """What --dry-run shows, run by a shell, makes the environment that workers find."""
    before = {"GPU_MAX_HW_QUEUES": "4; exit", "NVTE_FUSED_ATTN": "1", "PATH": "/usr/bin:/bin"}
    variables = environment.plan(wanted(JOB, before, rocm=True), before)
    lines = [variable.shell() for variable in variables]
    assert "# GPU_MAX_HW_QUEUES='4; exit'  (yours, kept; else 2: one queue to compute" in "\n".join(lines)
    assert any(line.startswith("unset NVTE_FUSED_ATTN  # ") for line in lines)
    script = "\n".join((*lines, "env -0"))
    done = subprocess.run(["bash", "-c", script], env=before, capture_output=True, text=True, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert {name: value for name, value in found.items() if name not in ("_", "PWD", "SHLVL")} == applied(before)
