"""One input file: what it is called, where it lies, what kind it is, and whether it is still the one planned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sft_shards.formats.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file."""

    path: str
    """The name that is published: as the user gave it, or below a folder that was given; "-" for standard input."""
    file: str
    """Where the bytes lie: an absolute path, never published."""
    kind: str
    """The name of its kind of input, a key of `kinds.KINDS`."""
    compression: str = ""
    """`gzip`, `zstd`, or "" for none."""
    bytes: int
    """Size of the file on disk."""
    mtime_ns: int
    """Time of its last change. Compared for equality only, since clocks jump, and never published."""
    format: str = ""
    """The name of its record format, set when the job is planned."""
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Keys of its messages that are not read, and in how many of the first records, as one text for each key."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of its own (`JobConfig.of`), which come before the job's."""

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for the plan."""
        return _without_empty(asdict(self))

    def published(self) -> dict[str, Any]:
        """Return what the manifest says of the source: nothing that depends on the machine or the clock."""
        found = {
            "path": self.path,
            "kind": self.kind,
            "compression": self.compression,
            "format": self.format,
            "bytes": self.bytes,
            "options": dict(self.options),
            "unread": self.unread,
        }
        return _without_empty(found)

    def check(self) -> None:
        """Make sure that the file is the one that was planned.

        Raises:
            DataError: it is gone, or has another size or time of change.
        """
        try:
            state = os.stat(self.file)
        except OSError as error:
            raise DataError(f"{self.path}: gone since the job was planned ({error.strerror}); put it back") from None
        if (state.st_size, state.st_mtime_ns) != (self.bytes, self.mtime_ns):
            raise DataError(f"{self.path}: changed since the job was planned; plan again with --overwrite")


def _without_empty(found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a source without options and unread keys where there are none."""
    return {name: value for name, value in found.items() if value or name not in ("options", "unread")}
