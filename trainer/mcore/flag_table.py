"""Megatron's flags as a table in the cache folder, by which a call is checked without importing Megatron.

Importing torch and Megatron takes seconds, and a wrong flag should be refused at once, before 64 workers import them.
The flags follow from the files of the installed Megatron, so a table is kept under a hash of these and of the packages
beside it. It holds each action of Megatron's parser as plain values:

    ~/.cache/sft-shards/megatron/<hash>.flags

A dozen flags cannot be kept whole, because a function of Megatron's reads their values. A call that sets one of them
needs Megatron's own parser (`NeedsMegatronError`).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from sft_shards.formats.cache_folder import cache_folder, read_private, write_private
from sft_shards.formats.shards.files import sha256_file
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.mcore.flags import Parser

FOLDER = "megatron"
READ = ("training", "core")
"""The subpackages of Megatron whose files decide which flags there are."""
TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}
ACTIONS: dict[str, Any] = {
    "_StoreAction": "store",
    "_StoreConstAction": "store_const",
    "_StoreTrueAction": "store_true",
    "_StoreFalseAction": "store_false",
    "_AppendAction": "append",
    "BooleanOptionalAction": argparse.BooleanOptionalAction,
}
VALUED = ("_StoreAction", "_AppendAction")
PLAIN = (bool, int, float, str, type(None))


class NeedsMegatronError(Exception):
    """The call sets a flag whose value only Megatron's own parser can read."""


def load() -> Parser | None:
    """Return a parser with the flags of the installed Megatron; None where no table of them is kept."""
    content = read_private(path())
    if content is None:
        return None
    made = Parser(prog="sft-train", allow_abbrev=False, add_help=False)
    with suppress(ValueError, KeyError, TypeError, argparse.ArgumentError):
        for row in json.loads(content):
            _add(made, row)
        return made
    return None


def keep(parser: argparse.ArgumentParser) -> None:
    """Keep the flags of Megatron's own parser, unless they are kept already or the folder cannot be written."""
    target = path()
    if parser._defaults or parser._mutually_exclusive_groups or load() is not None:
        return  # no Megatron so far has either of the two
    with suppress(OSError):
        write_private(target, json.dumps([_row(action) for action in parser._actions]).encode())


def make() -> None:
    """Have another process import Megatron and keep its flags; nothing is kept where that fails."""
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    subprocess.run(
        [sys.executable, "-m", "sft_shards.trainer.mcore.flag_table"], env=environment, capture_output=True, check=False
    )


def path() -> Path:
    """Return where the table of the installed Megatron is kept."""
    return cache_folder() / FOLDER / f"{installation()}.flags"


@cache
def installation() -> str:
    """Return a hash of what decides about Megatron's flags and their validation: its files, and what is installed."""
    packages = sorted({name for folder in sys.path if folder for name in _packages(Path(folder))})
    own = [sha256_file(Path(file)) for file in (__file__, compat.__file__)]
    parts = [sys.version, packages, sorted(_files()), own]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _packages(folder: Path) -> Iterator[str]:
    """Yield the names and versions of the packages in a folder of `sys.path`."""
    with suppress(OSError):
        yield from (name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info", ".egg-link")))


def _files() -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of change of each file of Megatron's Python code."""
    spec = importlib.util.find_spec("megatron")
    for top in spec.submodule_search_locations or () if spec is not None else ():
        for below in READ:
            for folder, _, names in os.walk(os.path.join(top, below)):
                for name in (name for name in names if name.endswith(".py")):
                    file = os.path.join(folder, name)
                    state = os.stat(file)
                    yield file, state.st_size, state.st_mtime_ns


def _row(action: argparse.Action) -> dict[str, Any]:
    """Return an action as plain values; what cannot be one is left out, and the row marked."""
    kind, type_ = type(action).__name__, getattr(action.type, "__name__", None)
    choices = None if action.choices is None else list(action.choices)
    kept = (
        kind in ACTIONS
        and (action.type is None or TYPES.get(type_ or "") is action.type)
        and all(map(_plain, (action.const, action.default, *(choices or ()))))
    )
    row: dict[str, Any] = {"options": list(action.option_strings), "dest": action.dest, "kind": kind, "kept": kept}
    if not kept:
        return {**row, "nargs": action.nargs}
    row |= {"nargs": action.nargs, "const": action.const, "default": action.default, "required": action.required}
    return row | {"type": type_, "choices": choices}


def _plain(value: Any) -> bool:
    return all(isinstance(one, PLAIN) for one in value) if isinstance(value, list) else type(value) in PLAIN


def _add(parser: Parser, row: dict[str, Any]) -> None:
    """Add the action of a row to a parser."""
    options, dest, kind = row["options"], row["dest"], row["kind"]
    if not row["kept"]:
        parser.add_argument(*options, dest=dest, nargs=row["nargs"], action=_Unreadable)
        return
    given: dict[str, Any] = {"dest": dest, "default": row["default"], "required": row["required"]}
    if kind in VALUED:
        given |= {"nargs": row["nargs"], "const": row["const"], "choices": row["choices"]}
        given["type"] = TYPES[row["type"]] if row["type"] else None
    elif kind == "_StoreConstAction":
        given["const"] = row["const"]
    elif kind == "BooleanOptionalAction":
        options = [option for option in options if not option.startswith("--no-")] or options
    parser.add_argument(*options, action=ACTIONS[kind], **given)


class _Unreadable(argparse.Action):
    """A flag of which the table knows nothing but the name."""

    def __call__(self, *_: Any) -> NoReturn:
        raise NeedsMegatronError(self.option_strings[0])


if __name__ == "__main__":
    keep(compat.parser())
