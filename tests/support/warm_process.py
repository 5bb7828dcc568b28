"""A process that has imported Megatron for its forks, so that a run in a fork costs seconds instead of tens."""

from __future__ import annotations

import importlib
import os

from sft_shards.trainer.launch import cpu, environment, launcher
from sft_shards.trainer.mcore import compat, cpu_device


def import_megatron(*modules: str) -> None:
    """Set the environment of a CPU worker, take the CPU for a GPU, and import Megatron.

    Forks inherit all of it: that they put the stand-in for a GPU into place once more does nothing.

    Args:
        modules: more to import, while Megatron's warnings are silenced.
    """
    environment.apply(environment.plan({**cpu.wanted(1, 1), **launcher.WARNINGS}, {}), os.environ)
    with compat.quiet():
        cpu_device.install()
        for name in ("core.models.gpt.gpt_layer_specs", "training.initialize", "training.training"):
            importlib.import_module(f"megatron.{name}")
        for name in modules:
            importlib.import_module(name)
    cpu_device.install = lambda: None
    import torch

    torch.set_num_threads(1)  # a fork of a process with threads of OpenMP hangs
