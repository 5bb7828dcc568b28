"""Checking a shard directory: every byte against its hash, every pair, every id, every count.

The manifest is checked against its own hash when it is read, and holds the hash of every other file. The checks after
the hashes find directories that were written wrongly, which no hash can tell. Shards are checked in parallel.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sft_shards.formats.arrow_arrays import numbers_of
from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Manifest, ShardInfo, SplitInfo
from sft_shards.formats.shards.contents import entries, kind_of, size_inside
from sft_shards.formats.shards.directory import Shard
from sft_shards.formats.shards.files import sha256_inside
from sft_shards.formats.shards.manifest import NAME, REJECTS, SIGNATURE, TEMPLATE
from sft_shards.formats.shards.rows import read_rows
from sft_shards.preprocess.sources.partition import combined_sha256
from sft_shards.preprocess.tasks.workdir import WORK
from sft_shards.preprocess.tasks.writer import read_rejects, turns_of

CHUNK = 1 << 24
"""Tokens that are read at a time."""


def verify(directory: Path, *, quick: bool = False) -> list[str]:
    """List what is wrong with a shard directory, a line each.

    Args:
        quick: check which files there are, their sizes and headers, and the sums; read no token.

    Raises:
        DataError: there is no readable manifest to check against.
    """
    manifest = Manifest.read(directory)
    found = [
        *_entries(directory, manifest),
        *_sums(directory, manifest),
        *_readable(_others, directory, manifest, quick),
    ]
    shards = [(directory / split, shard) for split, info in manifest.splits.items() for shard in info.shards]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for findings in pool.map(lambda one: list(_readable(_shard, *one, manifest, quick)), shards):
            found += findings
    if manifest.unrolled and not quick and not found:
        found += _readable(_records, directory, manifest)
    # A file name may hold bytes that are no text; they are shown as \udc80 and the like.
    return [line.encode("utf-8", "backslashreplace").decode("utf-8") for line in dict.fromkeys(found)]


def _readable(check: Callable[..., Iterator[str]], *arguments: object) -> Iterator[str]:
    """Give what a check finds; a file that cannot be read, or is no regular file of the directory, is a finding too."""
    try:
        yield from check(*arguments)
    except DataError as error:
        yield str(error)
    except OSError as error:
        yield f"{error.filename or arguments[0]}: cannot be read ({error.strerror or error})"


def _entries(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Compare what lies in the directory with what the manifest names: every entry, its kind, nothing more or less."""
    expected = manifest.file_names()
    folders = {str(parent) for path in expected for parent in Path(path).parents}
    known = expected | folders | {SIGNATURE}
    found = set()
    try:
        for path, mode in sorted(entries(directory)):
            if path == WORK:
                yield f"{directory / WORK}: left by a job that was stopped at its very end; remove it"
            if Path(path).parts[0] == WORK:
                continue
            found.add(path)
            right = stat.S_ISDIR(mode) if path in folders else stat.S_ISREG(mode)
            if path in known and not right:
                yield f"{directory / path}: is {kind_of(mode)}; a shard directory holds regular files and folders only"
            elif path not in known:
                yield f"{directory / path}: not in the manifest ({kind_of(mode)})"
    except OSError as error:
        yield f"{error.filename or directory}: cannot be read ({error.strerror or error})"
    for path in sorted(expected - found):
        yield f"{directory / path}: missing"


def _sums(directory: Path, manifest: Manifest) -> Iterator[str]:
    where = directory / NAME
    counts = manifest.counts
    if counts.read != counts.written + sum(counts.rejected.values()):
        yield f"{where}: {counts.read} records read are not those written and left out"
    sequences = sum(info.sequences for info in manifest.splits.values())
    if counts.written > sequences or (counts.written < sequences and not manifest.unrolled):
        yield f"{where}: {counts.written} records written are not the sequences of all splits"
    if counts.read != sum(source.records for source in manifest.sources):
        yield f"{where}: {counts.read} records read are not those of all sources"
    for source in manifest.sources:
        parts = source.parts
        if parts and (
            combined_sha256(parts) != source.sha256
            or sum(part.records for part in parts) != source.records
            or parts[-1].end != source.bytes
        ):
            yield f"{where}: the parts of source {source.path} do not add up to it"
    for split, info in manifest.splits.items():
        if SplitInfo.of(info.shards) != info:
            yield f"{where}: the sums of split {split} are not those of its shards"


def _others(directory: Path, manifest: Manifest, quick: bool) -> Iterator[str]:
    """Check the files that are not shards: the tokenizer's, the template's, and `rejects.jsonl`."""
    for name, digest in manifest.tokenizer.files.items():
        yield from _readable(_hash, directory, f"tokenizer/{name}", digest, quick)
    template = manifest.template
    if template.file:
        yield from _readable(_hash, directory, f"{TEMPLATE}/{template.file}", template.sha256, quick)
    yield from _readable(_rejects, directory, manifest, quick)


def _hash(directory: Path, name: str, digest: str, quick: bool) -> Iterator[str]:
    found = (digest if size_inside(directory, name) is not None else None) if quick else sha256_inside(directory, name)
    if found not in (None, digest):  # one that is missing is a finding of `_entries`
        yield f"{directory / name}: not the bytes that the manifest names"


def _rejects(directory: Path, manifest: Manifest, quick: bool) -> Iterator[str]:
    size, facts, where = size_inside(directory, REJECTS), manifest.rejects, directory / REJECTS
    if size is None:
        return
    if facts is not None and size != facts.bytes:
        yield f"{where}: {size} bytes, the manifest says {facts.bytes}"
    elif facts is not None:
        yield from _hash(directory, REJECTS, facts.sha256, quick)
    if quick:
        return
    reasons: Counter[str] = Counter()
    try:
        reasons.update(line.reason for line in read_rejects(directory))
    except DataError as error:
        yield f"{where}: not one JSON object per line ({error})"
        return
    if reasons != Counter(manifest.counts.rejected):
        yield f"{where}: {reasons.total()} records, the manifest counts {sum(manifest.counts.rejected.values())}"


def _shard(split: Path, info: ShardInfo, manifest: Manifest, quick: bool) -> Iterator[str]:
    directory = split.parent
    for name, facts in info.files.items():
        size = size_inside(directory, f"{split.name}/{name}")
        if size is None:
            return
        if size != facts.bytes:
            yield f"{split / name}: {size} bytes, the manifest says {facts.bytes}"
        else:
            yield from _hash(directory, f"{split.name}/{name}", facts.sha256, quick)
    try:
        shard = Shard(split, info, manifest.tokenizer.vocab_size)
        if not quick:
            shard.tokens.check_layout()
            shard.loss_mask.check_layout()
    except DataError as error:
        yield str(error)
        return
    where = f"{split}/{info.name}"
    if int(shard.tokens.lengths.max()) != info.longest:
        yield f"{where}: the longest sequence has {shard.tokens.lengths.max()} tokens, the manifest says {info.longest}"
    if quick:
        return
    trained = 0
    for begin in range(0, info.tokens, CHUNK):
        ids = shard.tokens.items[begin : begin + CHUNK]
        mask = shard.loss_mask.items[begin : begin + CHUNK]
        if int(ids.max()) >= manifest.tokenizer.vocab_size or int(ids.min()) < 0:
            yield f"{where}: an id from token {begin} on is outside of the vocabulary"
        if int(mask.max()) > 1:
            yield f"{where}: a mask value from token {begin} on is neither 0 nor 1"
        trained += int(mask.sum(dtype=np.int64))
    if trained != info.trained_tokens:
        yield f"{where}: {trained} trained tokens, the manifest says {info.trained_tokens}"
    yield from _rows(split, shard)


def _records(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Count the records that have sequences, where one may have several; all of them lie in one shard."""
    written = 0
    for split, info in manifest.splits.items():
        for shard in info.shards:
            table = read_rows(directory / split / "rows" / f"{shard.name}.parquet", ["record"], root=directory)
            written += len(np.unique(numbers_of(table["record"])))
    if written != manifest.counts.written:
        yield f"{directory / NAME}: {manifest.counts.written} records written, the rows name {written}"


def _rows(split: Path, shard: Shard) -> Iterator[str]:
    import pyarrow as pa

    path = split / "rows" / f"{shard.info.name}.parquet"
    try:
        table = read_rows(path, ["record", "tokens", "trained_tokens"], root=split.parent, count=shard.info.sequences)
    except (pa.ArrowException, OSError) as error:
        yield f"{path}: not a readable Parquet file of this shard ({' '.join(str(error).split())[:160]})"
        return
    if not np.array_equal(numbers_of(table["tokens"]), shard.tokens.lengths):
        yield f"{path}: tokens are not the lengths of the sequences"
        return
    starts = shard.tokens.starts
    trained = np.add.reduceat(shard.loss_mask.items, starts, dtype=np.int64)
    if not np.array_equal(numbers_of(table["trained_tokens"]), trained):
        yield f"{path}: trained tokens are not those of the sequences"
    turns = turns_of(table)
    if turns is not None:
        records = np.repeat(numbers_of(table["record"]), np.diff(turns.offsets))
        if len(np.unique(np.stack([records, turns.numbers]), axis=1).T) != len(records):
            yield f"{path}: a turn is trained in two sequences"
