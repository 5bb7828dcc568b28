"""One input file: what it is called, where it lies, what it contains, and whether it is still the one planned."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from sft_shards.formats.errors import DataError, RecordError

Item = tuple[int, Any | RecordError]
"""A record's number within its part with the record: a JSON text that is still to be parsed (bytes), a row, or the
reason why it could not be read."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file."""

    path: str
    """The name that is published: as given, or as found in a folder that was; "-" for standard input."""
    file: str
    """Where the bytes lie, absolute; not published."""
    kind: str
    """`jsonl` (a record per line), `json` (one array), `object` (one record), `parquet`, `arrow` or `csv`."""
    compression: str = ""
    """`gzip`, `zstd`, or nothing."""
    bytes: int
    mtime_ns: int
    """Only ever compared for equality, and not published: clocks jump."""
    format: str = ""
    """Name of the record format; set when the job is planned."""

    def as_dict(self) -> dict[str, Any]:
        """For the plan."""
        return asdict(self)

    def published(self) -> dict[str, Any]:
        """For the manifest: nothing that depends on the machine or the clock."""
        return {
            "path": self.path,
            "kind": self.kind,
            "compression": self.compression,
            "format": self.format,
            "bytes": self.bytes,
        }

    def check(self) -> None:
        """See that the file is the one that was planned.

        Raises:
            DataError: it is gone, or has another size or time of change.
        """
        try:
            state = os.stat(self.file)
        except OSError as error:
            raise DataError(f"{self.path}: gone since the job was planned ({error.strerror}); put it back") from None
        if (state.st_size, state.st_mtime_ns) != (self.bytes, self.mtime_ns):
            raise DataError(f"{self.path}: changed since the job was planned; plan again with --overwrite")
