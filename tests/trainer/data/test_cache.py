"""One builds, the others wait, and nobody waits for the dead."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sft_shards.formats.errors import DataError
from sft_shards.trainer.data import cache as module
from sft_shards.trainer.data.cache import Cache, default_root

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


@pytest.mark.unit
@pytest.mark.parametrize("harm", ["short", "other", "gone", "entry"])
def test_a_damaged_entry_is_named(tmp_path: Path, harm: str) -> None:
    cache = Cache(tmp_path)
    cache.arrays("thing", KEY, lambda: {"a": np.ones(300)})
    (entry,) = tmp_path.iterdir()
    file = entry / "a.npy"
    if harm == "short":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "other":
        np.save(file, np.ones(299))
    elif harm == "gone":
        file.unlink()
    else:
        (entry / "entry.json").write_text("{")
    with pytest.raises(DataError, match="damaged; delete the folder"):
        cache.arrays("thing", KEY, lambda: pytest.fail("built"))


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
    assert default_root() == Path("/x")
    monkeypatch.delenv("SFT_SHARDS_CACHE")
    assert default_root().parts[-2:] == (".cache", "sft-shards")
