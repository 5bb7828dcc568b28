"""Checks of the shard directories: they open, fit each other, and lie on a suitable file system.

Training reads shards at random through memory maps, so they should fit into the page cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.shards import open_shards, parse_shards
from sft_shards.trainer.doctor.machine import Machine, format_bytes
from sft_shards.trainer.doctor.report import Finding, failing, ok, warning

NETWORK = re.compile("nfs4?|lustre|gpfs|beegfs|ceph|wekafs|cifs|smb3|glusterfs|pvfs2|afs|9p|virtiofs")
"""Types of network file systems, as in /proc/self/mountinfo."""


def shards(machine: Machine) -> list[Finding]:
    """Return a finding for each directory, and one if they do not fit each other."""
    found, whole = [], []
    for text in machine.shards:
        try:
            path, _ = parse_shards(text)
            directory = open_shards([path])[0]
            size = sum(_sizes(directory))
        except (DataError, UsageError) as error:
            found.append(_failing(f"shards {text}", error))
            continue
        whole.append(path)
        found.append(_where(machine, directory, size))
    if len(whole) > 1:
        try:
            open_shards(whole)
        except DataError as error:
            found.append(_failing("shards together", error))
    return found


def _sizes(directory: ShardDirectory) -> Iterable[int]:
    """Open every split and yield the bytes of each file of tokens and masks."""
    for name in directory.manifest.splits:
        for shard in directory.split(name).shards:
            yield from (file.bytes for file in shard.info.files.values())


def _failing(name: str, error: Exception) -> Finding:
    """Return an error as a finding; the last part of its message is the remedy."""
    problem, _, remedy = str(error).rpartition("; ")
    return failing(name, problem or remedy, remedy if problem else "see docs/training.md")


def _where(machine: Machine, directory: ShardDirectory, size: int) -> Finding:
    name = f"shards {directory.path}"
    kind = machine.mount(directory.path).kind
    manifest, memory = directory.manifest, machine.available_memory()
    sequences = sum(split.sequences for split in manifest.splits.values())
    text = f"{sequences:,} conversations, {format_bytes(size)} on {kind or 'an unknown file system'}"
    if kind.startswith("fuse"):
        remedy = "copy them to a local disk: they are read at random, in small pieces"
        return warning(name, f"{text}, which answers small random reads slowly", remedy)
    if NETWORK.fullmatch(kind) and size > memory:
        remedy = "copy them to a local disk, or give training more memory"
        return warning(name, f"{text}, more than the {format_bytes(memory)} that could keep them in memory", remedy)
    return ok(name, text)
