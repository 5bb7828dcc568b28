"""Fuzzers with a budget of time: inputs are bytes, kept in a file while they are tried.

`FUZZ_SECONDS` says for how long each fuzzer makes inputs up (default: two seconds, which is for the ordinary tests), and
`FUZZ_SEED` which ones (default: 0; `make fuzz` draws another one for each run). An
input that fails is left in `tests/fuzz/found/`, and its path is printed; put it into `tests/fuzz/corpus/NAME/`, and it is
tried before anything else. One that ends the process (an abort in a library) is there too: it is written before it is
tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parent.parent / "fuzz"
SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
ROUND = 25
"""Inputs that are made up between two looks at the clock."""


def corpus(name: str) -> list[Path]:
    """The inputs of a fuzzer that are kept."""
    return sorted((FOLDER / "corpus" / name).glob("*"))


def fuzz(name: str, check: Callable[[bytes], None], inputs: st.SearchStrategy[bytes]) -> int:
    """Try inputs until the time is over; gives how many.

    Raises:
        AssertionError: one failed; the smallest that was found lies in the file that the message names.
    """
    tried = 0
    failed: list[bytes] = []
    path = FOLDER / "found" / f"{name}-{os.getpid()}"

    def attempt(data: bytes) -> None:
        nonlocal tried
        tried += 1
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        failed.append(data)
        check(data)
        failed.pop()

    options = settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + SECONDS
    for number in count(SEED):
        if time.monotonic() >= end:
            break
        try:
            seed(number)(options(given(inputs)(attempt)))()
        except BaseException as error:  # whatever a library raises: Rust's panics are no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            path.write_bytes(failed[-1])  # the last that hypothesis tried is the smallest
            raise AssertionError(
                f"{name}: failed on the input in {path} (seed {number})\n{type(error).__name__}: {error}"
            ) from error
    path.unlink(missing_ok=True)
    return tried
