"""What a job says at its end of records that were left out by a bug (`internal_error`, see `pipeline.containment`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.preprocess.pipeline.containment import INTERNAL_ERROR

SHOWN = 10
"""Different places in the code that are reported."""


def bug_reports(output: Path) -> Iterator[str]:
    """Yield a line for each place in the code at which records failed, with their number and the first of them."""
    found: dict[str, tuple[int, str]] = {}
    with open(output / REJECTS, encoding="utf-8") as file:
        for line in file:
            if INTERNAL_ERROR not in line:
                continue
            reject = json.loads(line)
            if reject["reason"] == INTERNAL_ERROR:
                first = f"record {reject['record']} of {reject['source']}"
                count, first = found.get(reject["detail"], (0, first))
                found[reject["detail"]] = count + 1, first
    for place, (count, first) in list(found.items())[:SHOWN]:
        records = "1 record" if count == 1 else f"{count:,} records"
        yield f"a bug in sft-shards left {records} out: {place}; report it with {first}"
    if len(found) > SHOWN:
        yield f"a bug in sft-shards: {len(found) - SHOWN} more places, see {output / REJECTS}"
