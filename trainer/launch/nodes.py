"""The machines of a run that is started by hand: `sft-train --nnodes 2 --node-rank 0 --master-addr node0 …` on each.

A run on one machine needs none of these options. Their names, and the variables that set them, are torchrun's.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sft_shards.formats.errors import UsageError

PORT = 29500
"""torchrun's default."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The number of machines, and which one this is."""

    count: int = 1
    rank: int = 0
    """Number of this machine, 0..count - 1."""
    master_addr: str = ""
    """Host name of node 0, which every node can resolve; "" with one machine."""
    master_port: int = PORT

    def torchrun(self) -> list[str]:
        """Return the arguments of torchrun for these machines; on one machine torchrun finds a free port itself."""
        if self.count == 1:
            return ["--standalone"]
        where = [f"--master-addr={self.master_addr}", f"--master-port={self.master_port}"]
        return [f"--nnodes={self.count}", f"--node-rank={self.rank}", *where]


def parse(count: int, rank: int | None, master_addr: str | None, master_port: int) -> Nodes:
    """Check the options about machines.

    Raises:
        UsageError: the rank is outside 0..count - 1, or node 0 is not named or cannot be resolved.
    """
    if rank is not None and not 0 <= rank < count:
        raise UsageError(f"--node-rank {rank}: with --nnodes {count} it is 0 to {count - 1}")
    if count == 1:
        return Nodes()
    if rank is None:
        raise UsageError(f"--nnodes {count}: --node-rank is missing; say which of the {count} this machine is, from 0")
    if not master_addr:
        raise UsageError(f"--nnodes {count}: --master-addr is missing; name node 0, or set MASTER_ADDR")
    try:
        socket.getaddrinfo(master_addr, master_port)
    except (OSError, UnicodeError):
        raise UsageError(
            f"--master-addr {master_addr}: this machine cannot resolve it; name node 0 so that all nodes can"
        ) from None
    return Nodes(count=count, rank=rank, master_addr=master_addr, master_port=master_port)
