"""What a contender is: three functions over folders. Nothing here needs more than numpy, in any environment."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What a contender made, all sequences one after the other."""

    lengths: NDArray[np.int64]
    """int64[sequences], in tokens."""
    ids: NDArray[np.int64]
    """int64[tokens]."""
    mask: NDArray[np.uint8] | None
    """u8[tokens], 1 where a token carries loss, unshifted; None where a contender makes none."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a contender is told."""

    tokenizer: str
    marked: str
    checkout: str | None = None
    backend: str | None = None
    """For our command: `--tokenizer-engine`."""
    record_format: str = "openai"
    file: str = "messages.jsonl"
    """For our command: the file of a part of the corpus that is read."""


class Contender:
    """One way to make sequences from `messages.jsonl` or `text.jsonl` in a folder; `work` is what is measured."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, source: Path, target: Path) -> None:
        """What is done before the clock starts."""

    def work(self, source: Path, target: Path) -> None:
        """Read the folder `source`, write into the folder `target`."""
        raise NotImplementedError

    def read(self, target: Path) -> Sequences:
        """What `work` wrote."""
        raise NotImplementedError


def from_lists(ids: Any, masks: Any = None) -> Sequences:
    """Sequences from lists of lists."""
    arrays = [np.asarray(one, dtype=np.int64) for one in ids]
    lengths = np.asarray([len(one) for one in arrays], dtype=np.int64)
    flat = None if masks is None else np.concatenate([np.asarray(one, dtype=np.uint8) for one in masks])
    return Sequences(lengths=lengths, ids=np.concatenate(arrays), mask=flat)


def read_megatron(prefix: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths and ids of a Megatron indexed data set, one sequence for each document."""
    index = Path(f"{prefix}.idx").read_bytes()
    kinds = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}
    count = int(np.frombuffer(index, "<u8", 1, 18)[0])
    lengths = np.frombuffer(index, "<i4", count, 34).astype(np.int64)
    return lengths, np.fromfile(f"{prefix}.bin", dtype=kinds[index[17]]).astype(np.int64)


def need_checkout(settings: Settings, path: str) -> Path:
    """The checkout that was given; FileNotFoundError where none was, or `path` is not in it."""
    if settings.checkout is None:
        raise FileNotFoundError("needs --checkout NAME=PATH")
    if not (Path(settings.checkout) / path).is_file():
        raise FileNotFoundError(f"no {path} in the checkout")
    return Path(settings.checkout)


def run_script(main: Callable[[], None], arguments: list[str]) -> None:
    """Call a script's `main` with arguments, and keep its output off the terminal."""
    before, sys.argv = sys.argv, ["script", *arguments]
    try:
        with quiet():
            main()
    finally:
        sys.argv = before


@contextlib.contextmanager
def quiet() -> Any:
    """Keep what is printed off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
