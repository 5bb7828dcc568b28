"""Agree with all nodes on the result of the trial of packed attention, which each node makes by itself.

If one node used Transformer Engine and another a mask, their ranks would build different models and wait for each other
for ever. So the nodes exchange their results in torchrun's own store before Megatron is initialised. The trial counts
as failed on all nodes if it failed on one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

SECONDS = 600
"""How long a node waits for the others: longer than the trial's own limit and imports from a cold file system."""


def trial_of_all(trial: str, environment: Mapping[str, str]) -> str:
    """Return why the trial failed on any node, or "" if it passed on all of them.

    Args:
        trial: why it failed on this node, or "".
        environment: this worker's environment, with torchrun's variables.
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
