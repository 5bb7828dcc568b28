"""Transformer Engine's attention backends: Megatron's flag and the three variables that must agree with it.

`--attention-backend` names a backend; Transformer Engine reads NVTE_FLASH_ATTN, NVTE_FUSED_ATTN and
NVTE_UNFUSED_ATTN. Megatron sets the variables from the flag, and asserts that a variable which is already set has the
same value (megatron/core/models/common/language_module, 0.16 to 0.19). ROCm images set all three.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLES = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")
BACKENDS = {
    "auto": ("1", "1", "1"),
    "flash": ("1", "0", "0"),
    "fused": ("0", "1", "0"),
    "unfused": ("0", "0", "1"),
    "local": ("0", "0", "0"),
}
"""The values of `VARIABLES` by the names of --attention-backend; `local` is Megatron's own attention."""


def from_environment(environment: Mapping[str, str]) -> str:
    """Return the backend that all three variables together name, or "" (also for `local`, which is none of them)."""
    values = tuple(environment.get(name, "") for name in VARIABLES)
    return next((name for name, wanted in BACKENDS.items() if wanted == values and name != "local"), "")


def as_environment(backend: str) -> dict[str, str]:
    """Return the variables that name a backend, for a process without Megatron; none for an unknown name."""
    return dict(zip(VARIABLES, BACKENDS[backend], strict=True)) if backend in BACKENDS else {}


def agreeing(environment: Mapping[str, str]) -> list[str]:
    """Return the backends with which Megatron accepts these variables; a variable that is not set accepts any."""
    return [
        name
        for name, values in BACKENDS.items()
        if all(environment.get(variable, value) == value for variable, value in zip(VARIABLES, values, strict=True))
    ]
