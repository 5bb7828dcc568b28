"""Standard input, copied to a file in the output folder, so that a job that was stopped can go on."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards.files import fsync_directory, sha256_file, sha256_inside
from sft_shards.preprocess.sources.streams import BLOCK

SPOOLED = "stdin"
"""Name of the copy."""


def spool(folder: Path, stream: IO[bytes] | None = None, *, replace: bool = False) -> Path:
    """Copy standard input to `folder/stdin` and return that path; keep what an unfinished job has there already.

    Args:
        stream: what to read (default: standard input).
        replace: take what is read, if it is anything, in place of what the unfinished job has.

    Raises:
        UsageError: standard input and the folder are both empty, or standard input differs from the unfinished job's.
    """
    target = folder / SPOOLED
    source = sys.stdin.buffer if stream is None else stream
    handle, name = tempfile.mkstemp(prefix="stdin-", dir=folder)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            while piece := source.read(BLOCK):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        before = sha256_inside(folder, target.name)
        if before is None and not size:
            raise UsageError("-: nothing came on standard input")
        if size and before != sha256_file(temporary):
            if before is not None and not replace:
                raise UsageError(
                    "-: standard input is not what the unfinished job was given; give the same, or --overwrite"
                )
            os.replace(temporary, target)
            fsync_directory(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return target
