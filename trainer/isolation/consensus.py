"""Agree with all nodes on the kinds of attention that failed, which each node finds out by itself.

If one node used Transformer Engine and another did not, their ranks would build different models and wait for each
other for ever. So the nodes exchange what failed in torchrun's own store before Megatron is initialised. A kind counts
as failed on all nodes if it failed on one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

SECONDS = 600
"""How long a node waits for the others: longer than the trial's own limit and imports from a cold file system."""


def failures_of_all(failures: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return why kinds failed on any node, by kind.

    Args:
        failures: why they failed on this node.
        environment: this worker's environment, with torchrun's variables.
    """
    nodes, node = int(environment.get("GROUP_WORLD_SIZE", "1")), environment.get("GROUP_RANK", "0")
    if nodes == 1:
        return dict(failures)
    distributed: Any = importlib.import_module("torch.distributed")
    port, limit = int(environment["MASTER_PORT"]), timedelta(seconds=SECONDS)
    server = distributed.TCPStore(environment["MASTER_ADDR"], port, is_master=False, timeout=limit)
    store = distributed.PrefixStore("sft-shards", server)
    if environment["LOCAL_RANK"] == "0":
        store.set(f"failures of {node}", json.dumps(failures))
    found: dict[str, str] = {}
    for number in range(nodes):
        for kind, why in json.loads(store.get(f"failures of {number}").decode()).items():
            found.setdefault(kind, why if str(number) == node else f"{why} (on node {number})")
    return found
