"""Changes to the files of a folder, written as JSON, so that an input of a fuzzer can be kept and repeated."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sft_shards.formats.shards.files import json_bytes

VALUES = (
    None,
    True,
    -1,
    0,
    1,
    1.5,
    1 << 80,
    "",
    "..",
    "../x",
    "/etc/passwd",
    "a\0b",
    "\u202e",
    "\x1b]0;x\x07",
    [],
    {},
    [[]],
    "x" * 3000,
)
PLACE = st.integers(0, 1 << 20)
KINDS = ("byte", "cut", "append", "remove", "link", "out", "fifo", "folder", "swap", "value", "value", "value", "drop")
MUTATIONS = (
    st.lists(st.tuples(st.sampled_from(KINDS), PLACE, PLACE, PLACE), min_size=1, max_size=3)
    .map(lambda steps: json.dumps(steps).encode())
)  # fmt: skip
"""Steps of a kind with three numbers, which choose file, place and value, each modulo what there is."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    rest = [value]
    while rest:
        one = rest.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            found.append((one, key))
            rest.append(one[key])
    return found


def mutate(folder: Path, data: bytes) -> None:
    """Change a folder as the steps say."""
    for kind, which, place, value in json.loads(data):
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if not paths:
            return
        path = paths[which % len(paths)]
        path.chmod(0o644)
        change(kind, path, paths[place % len(paths)], place, value)


def change(kind: str, path: Path, other: Path, place: int, value: int) -> None:
    content = path.read_bytes()
    at = place % max(len(content), 1)
    if kind == "byte":
        path.write_bytes(content[:at] + bytes([value % 256]) + content[at + 1 :])
    elif kind == "cut":
        path.write_bytes(content[:at])
    elif kind == "append":
        path.write_bytes(content + content[at : at + value % 64])
    elif kind == "swap":
        path.write_bytes(other.read_bytes())
    elif kind in ("value", "drop"):
        change_json(kind, path, content, place, value)
    else:
        path.unlink()
        special: dict[str, Callable[[], object]] = {
            "link": lambda: path.symlink_to(other),
            "out": lambda: path.symlink_to("/etc/hostname"),
            "fifo": lambda: os.mkfifo(path),
            "folder": lambda: path.mkdir(),
            "remove": lambda: None,
        }
        special[kind]()


def change_json(kind: str, path: Path, content: bytes, place: int, value: int) -> None:
    """Change or remove one value of a JSON file; a file that names its own hash gets the right one."""
    if path.suffix != ".json":
        return
    try:
        raw = json.loads(content)
    except ValueError:
        return
    found = places(raw)
    if not found:
        return
    container, key = found[place % len(found)]
    if kind == "drop":
        del container[key]
    else:
        container[key] = VALUES[value % len(VALUES)]
    if isinstance(raw, dict) and "sha256" in raw:
        bare = {name: one for name, one in raw.items() if name != "sha256"}
        raw["sha256"] = hashlib.sha256(json_bytes(bare)).hexdigest()
        path.write_bytes(json_bytes(raw))
    else:
        path.write_text(json.dumps(raw), "utf-8")


def copy(folder: Path, target: Path) -> Path:
    """A fresh copy of a folder, in place of an older one."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target, symlinks=True))
