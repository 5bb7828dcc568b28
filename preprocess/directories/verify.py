"""Checking a shard directory: every byte against its hash, every pair, every id, every count.

The manifest is checked against its own hash when it is read, and holds the hash of every other file. The checks after
the hashes find directories that were written wrongly, which no hash can tell. Shards are checked in parallel.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sft_shards.formats.arrow_arrays import numbers_of
from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Manifest, ShardInfo, SplitInfo
from sft_shards.formats.shards.directory import Shard
from sft_shards.formats.shards.files import sha256_file
from sft_shards.formats.shards.manifest import NAME
from sft_shards.preprocess.sources.partition import combined_sha256
from sft_shards.preprocess.tasks.workdir import WORK
from sft_shards.preprocess.tasks.writer import REJECTS, read_rows

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
    found = [*_files(directory, manifest), *_sums(directory, manifest), *_others(directory, manifest, quick)]
    shards = [(directory / split, shard) for split, info in manifest.splits.items() for shard in info.shards]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for findings in pool.map(lambda one: list(_shard(one[0], one[1], manifest, quick)), shards):
            found += findings
    return found


def _files(directory: Path, manifest: Manifest) -> Iterator[str]:
    expected = {NAME, REJECTS} | {f"tokenizer/{name}" for name in manifest.tokenizer.files}
    for split, info in manifest.splits.items():
        expected |= {f"{split}/{path}" for shard in info.shards for path in shard.files}
    if (directory / WORK).exists():
        yield f"{directory / WORK}: left by a job that was stopped at its very end; remove it"
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
    found = {path for path in found if Path(path).parts[0] != WORK}
    for path in sorted(expected - found):
        yield f"{directory / path}: missing"
    for path in sorted(found - expected):
        yield f"{directory / path}: not in the manifest"


def _sums(directory: Path, manifest: Manifest) -> Iterator[str]:
    where = directory / NAME
    counts = manifest.counts
    if counts.read != counts.written + sum(counts.rejected.values()):
        yield f"{where}: {counts.read} records read are not those written and left out"
    if counts.written != sum(info.sequences for info in manifest.splits.values()):
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
    """Check the files that are not shards: the tokenizer's, and `rejects.jsonl`."""
    for name, digest in manifest.tokenizer.files.items():
        path = directory / "tokenizer" / name
        if not quick and path.is_file() and sha256_file(path) != digest:
            yield f"{path}: not the bytes that the manifest names"
    rejects = directory / REJECTS
    if not rejects.is_file():
        return
    facts = manifest.rejects
    if facts is not None and rejects.stat().st_size != facts.bytes:
        yield f"{rejects}: {rejects.stat().st_size} bytes, the manifest says {facts.bytes}"
    elif facts is not None and not quick and sha256_file(rejects) != facts.sha256:
        yield f"{rejects}: not the bytes that the manifest names"
    if quick:
        return
    reasons: Counter[str] = Counter()
    try:
        with open(rejects, "rb") as file:
            reasons.update(json.loads(line)["reason"] for line in file)
    except (ValueError, KeyError, TypeError):
        yield f"{rejects}: not one JSON object per line"
        return
    if reasons != Counter(manifest.counts.rejected):
        yield f"{rejects}: {reasons.total()} records, the manifest counts {sum(manifest.counts.rejected.values())}"


def _shard(split: Path, info: ShardInfo, manifest: Manifest, quick: bool) -> Iterator[str]:
    for name, facts in info.files.items():
        path = split / name
        if not path.is_file():
            return
        if path.stat().st_size != facts.bytes:
            yield f"{path}: {path.stat().st_size} bytes, the manifest says {facts.bytes}"
        elif not quick and sha256_file(path) != facts.sha256:
            yield f"{path}: not the bytes that the manifest names"
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


def _rows(split: Path, shard: Shard) -> Iterator[str]:
    import pyarrow as pa

    path = split / "rows" / f"{shard.info.name}.parquet"
    try:
        table = read_rows(path, ["tokens", "trained_tokens"])
    except (pa.ArrowException, OSError):
        yield f"{path}: not a readable Parquet file"
        return
    if not np.array_equal(numbers_of(table["tokens"]), shard.tokens.lengths):
        yield f"{path}: tokens are not the lengths of the sequences"
        return
    starts = shard.tokens.starts
    trained = np.add.reduceat(shard.loss_mask.items, starts, dtype=np.int64)
    if not np.array_equal(numbers_of(table["trained_tokens"]), trained):
        yield f"{path}: trained tokens are not those of the sequences"
