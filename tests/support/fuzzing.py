"""Fuzzers with a budget: inputs are bytes, kept in a file while they are tried.

`FUZZ_ROUNDS` says how often each fuzzer makes up 25 inputs (default: 2, which is for the ordinary tests). `FUZZ_SECONDS`
says for how long instead, and then `FUZZ_ROUNDS` says nothing. `FUZZ_SEED` says which inputs (default: 0; `make fuzz` draws
another one for each run). With the same seed and rounds the same inputs are tried on every machine. An input that fails is left in `tests/fuzz/found/`, and its path is printed; put it into `tests/fuzz/corpus/NAME/`, and it is
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
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "2"))
SECONDS = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None
SEED = int(os.environ.get("FUZZ_SEED", "0"))
ROUND = 25
"""Inputs of one seed."""


def corpus(name: str) -> list[Path]:
    """The inputs of a fuzzer that are kept."""
    return sorted((FOLDER / "corpus" / name).glob("*"))


def fuzz(name: str, check: Callable[[bytes], None], inputs: st.SearchStrategy[bytes]) -> int:
    """Try inputs until the rounds, or the time, are over; gives how many.

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
    end = None if SECONDS is None else time.monotonic() + SECONDS
    for number in range(SEED, SEED + ROUNDS) if end is None else count(SEED):
        if end is not None and time.monotonic() >= end:
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
