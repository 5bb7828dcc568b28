"""What AMD GPUs want in the environment."""

from __future__ import annotations

from trainer import amd


def test_what_the_user_set_is_kept() -> None:
    environment = {"GPU_MAX_HW_QUEUES": "4"}
    added = amd.apply(environment, rocm=True)
    assert environment["GPU_MAX_HW_QUEUES"] == "4"
    assert "GPU_MAX_HW_QUEUES" not in added
    assert environment["HSA_NO_SCRATCH_RECLAIM"] == "1"
    assert amd.apply(environment, rocm=True) == {}


def test_other_gpus_get_what_megatron_asserts_and_no_more() -> None:
    assert amd.apply({}, rocm=False) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
