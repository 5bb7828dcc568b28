"""Names of inputs, told apart without looking into a file or importing what reads it.

A mistyped name is refused before anything is loaded; what a file holds is looked at when the job is planned.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.formats.hub import is_hub_name

STDIN = "-"
HUB = re.compile(r"([\w.-]+/[\w.-]+)(@[\w./-]+)?((?::[\w.-]+){0,2})")
"""OWNER/NAME, with @REVISION and :SPLIT or :CONFIG:SPLIT behind it (default: the newest commit, the split `train`)."""
URI = re.compile(r"[A-Za-z][\w+.-]+://")


def check_inputs(inputs: Sequence[str]) -> None:
    """Check that each input is there, or can be on the Hub.

    Raises:
        UsageError: an input that is neither.
    """
    for given in inputs:
        on_hub = HUB.fullmatch(given)
        named = given == STDIN or URI.match(given) or (on_hub and is_hub_name(on_hub[1]))
        if not named and not Path(given).exists() and not any(glob.iglob(given, recursive=True)):
            raise no_such_input(given)


def no_such_input(given: str) -> UsageError:
    """Return the error for an input that is not there."""
    return UsageError(f"{given}: no such file or folder; check the path (globs need quotes in the shell)")
