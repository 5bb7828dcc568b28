"""The content hash of a source, composed from those of its parts.

No process reads a whole source of a terabyte, so its hash is made from what the tasks hashed as they read: a source
of one part has the SHA-256 of its bytes (what `sha256sum` prints); one of several has the SHA-256 over a line
`BEGIN END HASH\\n` for each part, in order. The parts follow from the file and from `--shard-tokens`, so two jobs
with the same configuration give one file the same hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def composed_sha256(parts: Sequence[dict[str, Any]]) -> str:
    """The hash of a source from its parts, each with `begin`, `end` (bytes) and `sha256`.

    >>> composed_sha256([{"begin": 0, "end": 3, "sha256": "abc"}])
    'abc'
    """
    if len(parts) == 1:
        return str(parts[0]["sha256"])
    lines = "".join(f"{part['begin']} {part['end']} {part['sha256']}\n" for part in parts)
    return hashlib.sha256(lines.encode("ascii")).hexdigest()
