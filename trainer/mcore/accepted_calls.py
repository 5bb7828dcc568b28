"""Command lines that Megatron has validated on this machine, so that a repeated dry run needs no Megatron.

Megatron's validation is a function of the flags, the environment, the files that flags name, and what is installed. An
entry is kept under a hash of all of these; it says that Megatron accepted the flags, and what it warned about.

    ~/.cache/sft-shards/megatron/<hash>.accepted
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sft_shards.formats.cache_folder import cache_folder, read_private, write_private
from sft_shards.trainer.mcore.flag_table import FOLDER, installation

SHELL = ("_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL")
"""Variables of a shell's own, which change from one command to the next."""


def warning_of(argv: Sequence[str], padded: int, environment: Mapping[str, str]) -> str | None:
    """Return the warning that Megatron's version gave when it accepted a command line ("": none); None: it did not.

    Args:
        argv: all of Megatron's flags.
        padded: rows of the embedding.
        environment: the process's, as Megatron would see it.
    """
    content = read_private(_path(argv, padded, environment))
    with suppress(ValueError, KeyError, TypeError):
        return None if content is None else str(json.loads(content)["warning"])
    return None


def keep(argv: Sequence[str], padded: int, environment: Mapping[str, str], *, warning: str) -> None:
    """Keep that Megatron accepted a command line. Where the folder cannot be written, nothing is kept."""
    target = _path(argv, padded, environment)
    with suppress(OSError):
        write_private(target, json.dumps({"warning": warning}).encode())


def _path(argv: Sequence[str], padded: int, environment: Mapping[str, str]) -> Path:
    variables = sorted((name, value) for name, value in environment.items() if name not in SHELL)
    named = [(word, _state(word)) for word in (word.partition("=")[2] or word for word in argv)]
    parts = [installation(), list(argv), padded, variables, os.getcwd(), named]
    return cache_folder() / FOLDER / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.accepted"


def _state(word: str) -> tuple[int, int] | None:
    """Return size and time of change of a file or folder; None for a word that names none."""
    with suppress(OSError, ValueError):
        state = os.stat(word)
        return state.st_size, state.st_mtime_ns
    return None
