"""One builds, the others wait, and nobody waits for the dead."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sft_shards.formats.cache_folder import cache_folder
from sft_shards.formats.errors import DataError
from sft_shards.trainer.data import cache as module
from sft_shards.trainer.data.cache import Cache

KEY = {"n": 3}
BUILDER = """
import sys, time, pathlib, numpy as np
from sft_shards.trainer.data.cache import Cache
root, log, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def build():
    with open(log, "a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    return {"a": np.arange(1000), "empty": np.zeros((0, 2), dtype=np.uint8)}
found = Cache(root).arrays("thing", {"n": 3}, build)
print(int(found["a"].sum()), found["empty"].shape)
"""


def start(root: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.process
def test_one_builds_for_all(tmp_path: Path) -> None:
    root, log = tmp_path / "cache", tmp_path / "log"
    processes = [start(root, log, 1.0) for _ in range(4)]
    assert {process.communicate(timeout=60)[0] for process in processes} == {"499500 (0, 2)\n"}
    assert log.read_text() == "built\n"
    assert len(list(root.iterdir())) == 1, "no lock, nothing temporary"


@pytest.mark.process
def test_a_builder_that_was_killed_is_replaced(tmp_path: Path) -> None:
    root, log = tmp_path / "cache", tmp_path / "log"
    first = start(root, log, 600)
    while not log.exists():
        time.sleep(0.05)
    second = start(root, log, 0)
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60)[0] == "499500 (0, 2)\n"
    assert log.read_text() == "built\nbuilt\n"


@pytest.mark.process
def test_a_builder_elsewhere_is_given_up_once_it_gives_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only sleeping moves: the builder gives 50 signs, one a minute, then none."""
    name = "thing-" + hashlib.sha256(b'{"n": 3}').hexdigest()[:24]
    lock = tmp_path / f".{name}.lock"
    lock.write_text("another-machine 1\n")
    now, last_sign, signs = 0.0, 0.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now, last_sign, signs
        now += seconds
        if signs < 50 and now - last_sign >= 60:
            signs, last_sign = signs + 1, now
            os.utime(lock, ns=(signs, signs))

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    built_at: list[float] = []

    def build() -> dict[str, np.ndarray]:
        built_at.append(now)
        return {"a": np.ones(2)}

    Cache(tmp_path).arrays("thing", KEY, build)
    assert signs == 50
    assert len(built_at) == 1
    assert module.STALE <= built_at[0] - last_sign <= module.STALE + 1
    assert Cache(tmp_path).arrays("thing", KEY, lambda: pytest.fail("built"))["a"].tolist() == [1, 1]


@pytest.mark.unit
def test_whoever_finds_it_done_does_not_build(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.arrays("thing", KEY, lambda: {"a": np.ones(3)})
    found = cache.arrays("thing", KEY, lambda: pytest.fail("built"))
    assert not found["a"].flags.writeable
    other = cache.arrays("thing", {"n": 4}, lambda: {"a": np.zeros(3)})
    assert other["a"].sum() == 0


def rows() -> dict[str, np.ndarray]:
    return {"rows": np.arange(300, dtype=np.uint32), "bounds": np.arange(0, 301, 3, dtype=np.uint32)}


def change(entry: Path, alter: Callable[[np.ndarray], np.ndarray], name: str = "rows") -> None:
    """Write other numbers of the same type and shape into an entry."""
    array = np.load(entry / f"{name}.npy")
    np.save(entry / f"{name}.npy", alter(array))


def other_key(entry: Path) -> None:
    raw = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps({**raw, "key": {"n": 4}}))


def link(entry: Path, name: str) -> None:
    os.rename(entry / name, entry / "moved")
    (entry / name).symlink_to("moved")


def fifo(entry: Path, name: str) -> None:
    (entry / name).unlink()
    os.mkfifo(entry / name)


def file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("x")


HARM: dict[str, Callable[[Path], object]] = {
    "cut off": lambda entry: os.truncate(entry / "rows.npy", 500),
    "of another shape": lambda entry: np.save(entry / "rows.npy", np.ones(299, dtype=np.uint32)),
    "an array is gone": lambda entry: (entry / "rows.npy").unlink(),
    "entry.json is gone": lambda entry: (entry / "entry.json").unlink(),
    "no JSON": lambda entry: (entry / "entry.json").write_text("{"),
    "without hashes": lambda entry: (entry / "entry.json").write_text('{"key": {"n": 3}, "arrays": {}, "x": 1}'),
    "of another key": other_key,
    "duplicated rows": lambda entry: change(entry, lambda rows: np.repeat(rows[:150], 2)),
    "zeroed bounds": lambda entry: change(entry, np.zeros_like, "bounds"),
    "a zeroed file": lambda entry: (entry / "rows.npy").write_bytes(bytes(1328)),
    "pickled objects": lambda entry: np.save(entry / "rows.npy", np.array([{}] * 300, dtype=object)),
    "an array is a link": lambda entry: link(entry, "rows.npy"),
    "entry.json is a link": lambda entry: link(entry, "entry.json"),
    "an array is a FIFO": lambda entry: fifo(entry, "rows.npy"),
    "entry.json is a FIFO": lambda entry: fifo(entry, "entry.json"),
    "the entry is empty": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
    "the entry is a file": file,
}


@pytest.mark.unit
@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_damaged_entry_is_made_again(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    cache = Cache(tmp_path)
    cache.arrays("thing", KEY, rows)
    (entry,) = tmp_path.iterdir()
    harm(entry)
    found = cache.arrays("thing", KEY, rows)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in rows().items()
    }
    cache.arrays("thing", KEY, lambda: pytest.fail("built"))
    assert list(tmp_path.iterdir()) == [entry], "no lock, nothing temporary"


@pytest.mark.process
def test_one_heals_a_damaged_entry_for_all(tmp_path: Path) -> None:
    root, log = tmp_path / "cache", tmp_path / "log"
    assert start(root, log, 0).communicate(timeout=60)[0]
    (entry,) = root.iterdir()
    change(entry, np.zeros_like, "a")
    processes = [start(root, log, 1.0) for _ in range(3)]
    assert {process.communicate(timeout=60)[0] for process in processes} == {"499500 (0, 2)\n"}
    assert log.read_text() == "built\nbuilt\n"


@pytest.mark.unit
def test_an_entry_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.arrays("thing", KEY, lambda: {"a": np.zeros(3)})
    (theirs,) = tmp_path.iterdir()
    owner = module._owner
    monkeypatch.setattr(module, "_owner", lambda path: 4242 if path == theirs else owner(path))
    for _ in range(2):
        assert cache.arrays("thing", KEY, lambda: {"a": np.ones(3)})["a"].tolist() == [1, 1, 1]
    assert sorted(tmp_path.iterdir()) == [theirs, tmp_path / f"{theirs.name}-{os.geteuid()}"]
    monkeypatch.setattr(module, "_owner", lambda path: 4242)
    with pytest.raises(DataError, match="belongs to another user; name another folder with --cache-dir"):
        cache.arrays("thing", KEY, rows)


@pytest.mark.unit
@pytest.mark.parametrize(("owner", "own"), [(7, True), (0, True), (4242, True), (8, False)])
def test_whose_entries_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, own: bool) -> None:
    """One's own, root's, and those of the user that the file system gives new files to (here 7)."""
    calls = SimpleNamespace(geteuid=lambda: 4242, fstat=lambda handle: SimpleNamespace(st_uid=7))
    monkeypatch.setattr(module, "os", calls)
    monkeypatch.setattr(module, "_owner", lambda path: owner)
    assert module._is_own(tmp_path, tmp_path / "entry") is own


@pytest.mark.unit
def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail() -> dict[str, np.ndarray]:
        raise DataError("no")

    with pytest.raises(DataError, match=r"^no$"):
        cache.arrays("thing", KEY, fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--cache-dir"):
        Cache(tmp_path / "file" / "cache").arrays("thing", KEY, dict)


@pytest.mark.unit
def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFT_SHARDS_CACHE", "/x")
    assert cache_folder() == Path("/x")
    monkeypatch.delenv("SFT_SHARDS_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "sft-shards")
