"""One answer for all nodes to the trial of packed attention, which each node makes by itself.

Were one node to pack with Transformer Engine and another with a mask, their ranks would build different models and
wait for each other for ever. So the answers meet in torchrun's own store, before Megatron is initialised: a trial that
failed anywhere has failed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

SECONDS = 600
"""Nodes may be so far apart: the trial's own limit, and the time that imports take on a cold file system."""


def trial_of_all(trial: str, environment: Mapping[str, str]) -> str:
    """What the trial said, "" where it passed on every node.

    Args:
        trial: what it said on this node.
        environment: a worker's, as torchrun makes it.
    """
    nodes, node = int(environment.get("GROUP_WORLD_SIZE", "1")), environment.get("GROUP_RANK", "0")
    if nodes == 1:
        return trial
    distributed: Any = importlib.import_module("torch.distributed")
    port, limit = int(environment["MASTER_PORT"]), timedelta(seconds=SECONDS)
    server = distributed.TCPStore(environment["MASTER_ADDR"], port, is_master=False, timeout=limit)
    store = distributed.PrefixStore("sft-shards", server)
    if environment["LOCAL_RANK"] == "0":
        store.set(f"trial of {node}", trial)
    for number in range(nodes):
        if said := store.get(f"trial of {number}").decode():
            return said if str(number) == node else f"{said} (on node {number})"
    return ""
