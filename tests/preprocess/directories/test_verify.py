"""verify finds every corruption: of any byte of any file, and of directories that were written wrongly, hashes and all."""

import json
import os
import random
import shutil
import socket
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from preprocess_jobs import INPUTS, config, contents
from writable import writable

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import FileInfo, Manifest
from sft_shards.formats.shards.files import sha256_file
from sft_shards.preprocess.directories.verify import verify
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.unit

CORRUPTIONS = 300


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    run(config(INPUTS[:2], shard_tokens=60_000), output, workers=1)
    assert verify(output) == []
    assert verify(output, quick=True) == []
    return output


@pytest.fixture
def copy(made, tmp_path):
    return writable(Path(shutil.copytree(made, tmp_path / "out")))


def findings(directory, **options):
    try:
        return verify(directory, **options)
    except DataError as error:
        return [str(error)]


def test_every_one_of_hundreds_of_changed_bytes_is_found(copy):
    dice = random.Random(7)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
    before = contents(copy)
    missed = []
    for number in range(CORRUPTIONS):
        path = files[number % len(files)] if number < 3 * len(files) else dice.choice(files)
        data = bytearray(path.read_bytes())
        place = dice.randrange(len(data))
        data[place] ^= 1 << dice.randrange(8)
        original = path.read_bytes()
        path.write_bytes(data)
        found = findings(copy)
        if not any(path.name in line or path.parent.name in line for line in found):
            missed.append((str(path), place, found))
        path.write_bytes(original)
    assert not missed
    assert contents(copy) == before
    assert len(files) > 20


@pytest.mark.parametrize("quick", [False, True])
def test_every_file_cut_extended_removed_or_added_is_found(copy, quick):
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        if quick and path.parent.name == "tokenizer":
            continue  # the manifest holds their hashes and not their sizes
        original = path.read_bytes()
        for data in (original[:-1], original + b"\0"):
            if data != original:
                path.write_bytes(data)
                assert findings(copy, quick=quick), path
        path.unlink()
        assert findings(copy, quick=quick), path
        path.write_bytes(original)
    extra = copy / "train" / "tokens" / "99999.bin"
    extra.write_bytes(b"x")
    assert any("99999.bin: not in the manifest" in line for line in findings(copy, quick=quick))
    extra.unlink()
    (copy / "train" / "tokens" / "99999.idx").symlink_to("nowhere")
    assert any("99999.idx: not in the manifest" in line for line in findings(copy, quick=quick))
    (copy / "train" / "tokens" / "99999.idx").unlink()
    (copy / ".work").mkdir()
    assert any("left by a job" in line for line in findings(copy, quick=quick))
    (copy / ".work").rmdir()
    assert findings(copy, quick=quick) == []


PLACES = (
    "manifest.json",
    "rejects.jsonl",
    "tokenizer/tokenizer.json",
    "train/tokens/00000.bin",
    "train/tokens/00000.idx",
    "train/loss_mask/00000.bin",
    "train/rows/00000.parquet",
    "tokenizer",
    "train",
    "train/rows",
)


def make_socket(path):
    """A socket's address holds 107 bytes; the folder's descriptor makes a short one of any path."""
    folder = os.open(path.parent, os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_regular_file_is_found_and_nothing_hangs(copy, tmp_path, place, quick):
    """Links to the right bytes, dangling links, FIFOs without a writer, devices, sockets, folders."""
    path, moved = copy / place, tmp_path / "moved"
    os.rename(path, moved)
    made = {
        "a link": lambda: path.symlink_to(moved),
        "a link ": lambda: path.symlink_to("nothing"),
        "a link  ": lambda: path.symlink_to("/dev/zero"),
        "a FIFO": lambda: os.mkfifo(path),
        "a socket": lambda: make_socket(path),
        "a folder": lambda: path.mkdir(),
        "a file": lambda: path.write_bytes(b"x"),
    }
    for kind, make in made.items():
        if kind == ("a folder" if moved.is_dir() else "a file"):
            continue
        make()
        found = findings(copy, quick=quick)
        line = f"{path}: is {kind.strip()}; a shard directory holds regular files and folders only"
        assert line in found, found
        path.rmdir() if kind == "a folder" else path.unlink()


@pytest.mark.parametrize("quick", [False, True])
def test_a_device_is_found_and_not_read(copy, quick):
    """`/dev/zero` by its own numbers, which has no end."""
    path = copy / "train" / "tokens" / "00000.bin"
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    assert f"{path}: is a device; a shard directory holds regular files and folders only" in findings(copy, quick=quick)


def test_whatever_the_manifest_does_not_name_is_found(copy):
    (copy / "train" / "empty").mkdir()
    os.mkfifo(copy / "train" / "tokens" / "fifo")
    (copy / "link").symlink_to("train")
    (copy / "tokenizer" / "evil.py").write_text("import os")
    with open(os.fsencode(copy) + b"/\xff", "wb"):
        pass
    assert findings(copy) == findings(copy, quick=True)
    assert sorted(line.removeprefix(f"{copy}/") for line in findings(copy)) == [
        "\\udcff: not in the manifest (a file)",
        "link: not in the manifest (a link)",
        "tokenizer/evil.py: not in the manifest (a file)",
        "train/empty: not in the manifest (a folder)",
        "train/tokens/fifo: not in the manifest (a FIFO)",
    ]


def rewritten(directory, change):
    """Write the manifest anew with hashes that fit the files: what no hash can tell is left to find."""
    manifest = Manifest.read(directory)
    splits = {}
    for split, info in manifest.splits.items():
        shards = []
        for shard in info.shards:
            files = {}
            for path in shard.files:
                place = directory / split / path
                files[path] = FileInfo(bytes=place.stat().st_size, sha256=sha256_file(place))
            shards.append(replace(shard, files=files))
        splits[split] = replace(info, shards=tuple(shards))
    change(replace(manifest, splits=splits)).write(directory)


def poke(path, place, value, dtype):
    data = np.fromfile(path, dtype=dtype)
    data[place] = value
    data.tofile(path)


def negative(split):
    """Give the first two sequences lengths whose sum is right: -1, and the rest."""
    for kind in ("tokens", "loss_mask"):
        lengths = np.fromfile(split / kind / "00000.idx", dtype="<i4", offset=34, count=2)
        poke(split / kind / "00000.idx", slice(34, 42), np.array([-1, lengths.sum() + 1], "<i4").view("u1"), "u1")


def reverse(path):
    """Put the rows of a rows file into the opposite order."""
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.take(list(range(table.num_rows))[::-1]), path)


def same(manifest):
    return manifest


def shard_changed(manifest, **values):
    info = manifest.splits["train"]
    return replace(
        manifest,
        splits={
            **manifest.splits,
            "train": replace(info, shards=(replace(info.shards[0], **values), *info.shards[1:])),
        },
    )


@pytest.mark.parametrize(
    ("spoil", "change", "match"),
    [
        (lambda d: poke(d / "train/tokens/00000.bin", 5, 60_000, "<u2"), same, "outside of the vocabulary"),
        (lambda d: poke(d / "train/loss_mask/00000.bin", 5, 2, "u1"), same, "neither 0 nor 1"),
        (
            lambda d: poke(d / "train/loss_mask/00000.bin", 0, 1, "u1"),
            same,
            "trained tokens, the manifest says",
        ),
        (
            lambda d: [shutil.copy(d / f"train/loss_mask/00001.{end}", d / f"train/loss_mask/00000.{end}")
                       for end in ("bin", "idx")],
            same,
            "different lengths",
        ),
        (lambda d: poke(d / "train/tokens/00000.idx", 60, 99, "u1"), same, "its index needs|do not follow"),
        (lambda d: negative(d / "train"), same, "sequence 0 has -1 items"),
        (
            lambda d: shutil.copy(d / "train/rows/00001.parquet", d / "train/rows/00000.parquet"),
            same,
            r"not a readable Parquet file of this shard \(\d+ rows, not \d+\)",
        ),
        (lambda d: reverse(d / "train/rows/00000.parquet"), same, "tokens are not the lengths"),
        (lambda d: (d / "train/rows/00000.parquet").write_bytes(b"PAR1"), same, "not a readable Parquet file"),
        (lambda d: None, lambda m: shard_changed(m, longest=7), "the longest sequence has"),
        (lambda d: None, lambda m: shard_changed(m, tokens=7), "the sums of split train"),
        (
            lambda d: None,
            lambda m: replace(m, counts=replace(m.counts, read=m.counts.read + 1)),
            "records read are not",
        ),
        (
            lambda d: None,
            lambda m: replace(m, counts=replace(m.counts, read=m.counts.read + 1, written=m.counts.written + 1)),
            "not the sequences of all splits",
        ),
        (
            lambda d: None,
            lambda m: replace(m, sources=(replace(m.sources[0], sha256="0" * 64), *m.sources[1:])),
            "do not add up",
        ),
    ],
)  # fmt: skip
def test_what_was_written_wrongly_is_found_though_all_hashes_fit(copy, spoil, change, match):
    import re

    spoil(copy)
    rewritten(copy, change)
    assert any(re.search(match, line) for line in verify(copy)), verify(copy)


def test_a_manifest_with_an_unknown_split_is_not_read(copy):
    rewritten(copy, lambda m: replace(m, splits={**m.splits, "extra": m.splits["train"]}))
    with pytest.raises(DataError, match="unknown split 'extra'"):
        verify(copy)


def test_rejects_that_do_not_add_up(copy):
    path = copy / "rejects.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines
    path.write_bytes(b"".join(lines[1:]))
    manifest = Manifest.read(copy)
    replace(manifest, rejects=FileInfo(bytes=path.stat().st_size, sha256=sha256_file(path))).write(copy)
    assert any("the manifest counts" in line for line in verify(copy))
    path.write_bytes(b"[]\n")
    assert any("not one JSON object per line" in line for line in verify(copy))


def test_a_shard_that_is_gone_from_disk_and_manifest_alike_is_found(copy):
    manifest = Manifest.read(copy)
    info = manifest.splits["train"]
    for path in info.shards[-1].files:
        (copy / "train" / path).unlink()
    less = replace(manifest, splits={**manifest.splits, "train": replace(info, shards=info.shards[:-1])})
    less.write(copy)
    with pytest.raises(DataError, match="names a shard that is not there"):
        verify(copy, quick=True)
    sources = tuple(replace(source, parts=()) for source in manifest.sources)
    replace(less, sources=sources).write(copy)
    assert any("the sums of split train" in line for line in verify(copy, quick=True))


def test_white_space_in_the_manifest_counts(copy):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, indent=2), "utf-8")
    with pytest.raises(DataError, match="not as it was written"):
        verify(copy)


def test_the_command_says_what_is_wrong_and_exits_with_1(copy, preprocess):
    assert preprocess("verify", copy)[0] == 0
    poke(copy / "train/tokens/00000.bin", 5, 1, "<u2")
    status, out, _ = preprocess("verify", copy, "--json")
    assert status == 1
    assert json.loads(out) == [f"{copy}/train/tokens/00000.bin: not the bytes that the manifest names"]
    assert preprocess("verify", copy, "--quick")[0] == 0
