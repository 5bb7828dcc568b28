"""`--extend DIR`: taking over from an older shard directory what would come out the same.

A part of a source is taken over where the older directory has one of the same file, place and hash, made with the
same configuration, tokenizer, template and versions. A part of a file of lines also needs the part after it to be the
same, because its last line may end there; a table or a compressed file is taken over as a whole or not at all. Each
task finds out for itself: it hashes its part, and either links the older shard or makes its own. The result is byte
for byte what a run without `--extend` gives, because every file is compared with its hash before it is taken over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from sft_shards.formats.arrow_arrays import numbers_of
from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest, PartInfo, SourceInfo
from sft_shards.formats.shards.contents import is_file_inside, open_inside, read_inside
from sft_shards.formats.shards.files import sha256_inside, sha256_of, sync, write_json
from sft_shards.formats.shards.manifest import NAME as MANIFEST
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.formats.shards.rows import read_rows
from sft_shards.formats.shards.schema import SchemaError, build, parse
from sft_shards.preprocess.source_options import reading
from sft_shards.preprocess.sources import Source, kind_of
from sft_shards.preprocess.sources.streams import hash_range
from sft_shards.preprocess.tasks.diff import differences, joined
from sft_shards.preprocess.tasks.plan import Plan, Task
from sft_shards.preprocess.tasks.workdir import WORK, Receipt, StagedShard
from sft_shards.preprocess.tasks.writer import KINDS, ROWS, read_rejects, reject_line, shift_rows

NAME = "extend.json"
MAY_DIFFER = ("inputs", "sources")
"""Fields of the configuration in which the older directory may differ."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A part of the older directory that may be what a task would make."""

    part: PartInfo
    base: int
    """Number of its first record within the source."""
    also: tuple[tuple[int, int, str], ...]
    """Other ranges of the source that must be the same: begin, end, SHA-256."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """`.work/extend.json`."""

    directory: str
    """The older directory, absolute."""
    manifest: str
    """SHA-256 of its manifest."""
    tasks: dict[str, Candidate]
    """By task number."""

    @classmethod
    def read(cls, output: Path) -> Candidates:
        """Read what `write_candidates` wrote below an output folder.

        Raises:
            DataError: it is a link, or of the wrong form.
        """
        try:
            return build(cls, parse(read_inside(output, f"{WORK}/{NAME}")))
        except SchemaError as error:
            raise DataError(f"{output / WORK / NAME}: damaged ({error}); start again with --overwrite") from None


def write_candidates(plan: Plan, output: Path, older: Path) -> int:
    """Write down for every task which part of the older directory may be the same, and return how many there are.

    Raises:
        UsageError: the older directory was made in another way.
        DataError: it is not a complete shard directory.
    """
    manifest = Manifest.read(older)
    _check_made_alike(plan, older, manifest)
    known = {source.path: source for source in manifest.sources}
    tasks: dict[str, Candidate] = {}
    for source in plan.sources:
        old = known.get(source.path)
        own = [task for task in plan.tasks if task.source.path == source.path]
        if old is not None and _read_alike(source, old):
            tasks |= _candidates(own, old, by_lines=kind_of(source).keeps_parts_when_appended(source))
    found = Candidates(directory=os.path.abspath(older), manifest=sha256_inside(older, MANIFEST) or "", tasks=tasks)
    write_json(output / WORK / NAME, asdict(found), scratch=output / WORK)
    return len(tasks)


def _read_alike(new: Source, old: SourceInfo) -> bool:
    """Return whether two sources of one path are read in the same way; their weights may differ."""
    same = all(getattr(new, name) == getattr(old, name) for name in ("kind", "compression", "format"))
    return same and reading(new.options) == reading(old.options)


def _check_made_alike(plan: Plan, older: Path, manifest: Manifest) -> None:
    old, new = (
        {key: value for key, value in config.items() if key not in MAY_DIFFER}
        for config in (manifest.config, plan.config.as_dict())
    )
    changed = [
        *differences(old, new, "config"),
        *differences(manifest.tokenizer.files, plan.tokenizer_sha256, "tokenizer"),
        *differences(manifest.template.sha256, plan.template_sha256, "template.sha256"),
        *differences(manifest.versions, plan.versions, "versions"),
    ]
    if changed:
        raise UsageError(f"--extend {older}: made in another way ({joined(changed, 5)}); run without --extend")


def _candidates(tasks: list[Task], old: SourceInfo, *, by_lines: bool) -> dict[str, Candidate]:
    """Find the candidates for the tasks of one source.

    Args:
        by_lines: the source is an uncompressed file of lines, so that a part depends on itself and on the next one.
    """
    places = [(part.begin, part.end) for part in old.parts]
    if not by_lines and places != [(task.part.begin, task.part.end) for task in tasks]:
        return {}
    found = {}
    base = 0
    for at, part in enumerate(old.parts):
        others = old.parts[at + 1 : at + 2] if by_lines else (*old.parts[:at], *old.parts[at + 1 :])
        same = at < len(tasks) and places[at] == (tasks[at].part.begin, tasks[at].part.end)
        if same and (len(tasks) > at + 1) == (len(places) > at + 1):
            also = tuple((one.begin, one.end, one.sha256) for one in others)
            found[str(tasks[at].number)] = Candidate(part=part, base=base, also=also)
        base += part.records
    return found


def adopt(task: Task, output: Path, folder: Path) -> Receipt | None:
    """Take a task's shards over into its folder and return its receipt, or None where they must be made.

    Raises:
        DataError: the older directory is gone, damaged or has changed, or the source changed since it was planned.
    """
    if not is_file_inside(output, f"{WORK}/{NAME}"):
        return None
    candidates = _read_candidates(output, (output / WORK / NAME).stat().st_mtime_ns)
    candidate = candidates.tasks.get(str(task.number))
    if candidate is None:
        return None
    part, source = candidate.part, task.source
    source.check()
    wanted = ((part.begin, part.end, part.sha256), *candidate.also)
    if any(_hashed(source.file, source.mtime_ns, begin, end) != digest for begin, end, digest in wanted):
        return None
    source.check()
    older = Path(candidates.directory)
    manifest = _read_older(older, candidates.manifest)
    shards: dict[str, StagedShard] = {}
    written = 0
    for split, name in part.shards.items():
        info = next(shard for shard in manifest.splits[split].shards if shard.name == name)
        files = {}
        (folder / split).mkdir()
        for kind in KINDS:
            for suffix in (".bin", ".idx"):
                facts = files[kind + suffix] = info.files[f"{kind}/{name}{suffix}"]
                target = folder / split / f"{kind}{suffix}"
                link_or_copy(older, f"{split}/{kind}/{name}{suffix}", target, sha256=facts.sha256, scratch=folder)
        rows = older / split / "rows" / f"{name}.parquet"
        with open_verified(older, f"{split}/rows/{name}.parquet", info.files[f"rows/{name}.parquet"].sha256):
            pass
        shift_rows(rows, folder / split / ROWS, -candidate.base, root=older, count=info.sequences)
        written += len(np.unique(numbers_of(read_rows(folder / split / ROWS, ["record"])["record"])))
        shards[split] = StagedShard(
            sequences=info.sequences,
            tokens=info.tokens,
            trained_tokens=info.trained_tokens,
            longest=info.longest,
            files=files,
        )
    left_out = part.records - written
    if left_out:
        with open_verified(older, REJECTS, manifest.rejects.sha256 if manifest.rejects else None):
            pass
    rejected = _copy_rejects(older, source.path, candidate.base, part.records, folder, left_out)
    return Receipt(
        records=part.records,
        sha256=part.sha256,
        rejected=dict(sorted(rejected.items())),
        notes=part.notes,
        shards=shards,
    )


@lru_cache(maxsize=1)
def _read_candidates(output: Path, _mtime_ns: int) -> Candidates:
    return Candidates.read(output)


@lru_cache(maxsize=1)
def _read_older(directory: Path, digest: str) -> Manifest:
    if sha256_inside(directory, MANIFEST) != digest:
        raise DataError(f"{directory}: changed since the job was planned; run again with --overwrite")
    return Manifest.read(directory)


@lru_cache(maxsize=1 << 12)
def _hashed(path: str, _mtime_ns: int, begin: int, end: int) -> str:
    return hash_range(path, begin, end)


def _copy_rejects(older: Path, source: str, base: int, records: int, folder: Path, count: int) -> dict[str, int]:
    """Copy the rejects of one part, renumbered from 0, and count them by reason.

    Args:
        count: how many there must be; with 0 the file is not read.
    """
    rejected: dict[str, int] = {}
    with open(folder / REJECTS, "wb") as out:
        for line in read_rejects(older) if count else ():
            if line.source == source and base <= line.record < base + records:
                rejected[line.reason] = rejected.get(line.reason, 0) + 1
                out.write(reject_line(source, line.record - base, line.reason, line.detail).encode("utf-8"))
        out.flush()
        os.fsync(out.fileno())
    return rejected


@contextmanager
def open_verified(directory: Path, name: str, sha256: str | None) -> Iterator[IO[bytes]]:
    """Open a file of a complete shard directory for reading, after a comparison with the hash of its manifest.

    Args:
        name: path of the file below `directory`.
        sha256: None where the manifest, of an older release, has no hash of this file; then nothing is compared.

    Raises:
        DataError: the file is gone, no regular file of the directory, or has another hash.
    """
    try:
        file = open_inside(directory, name)
    except FileNotFoundError:
        raise DataError(f"{directory / name}: gone; run again with --overwrite and without --extend") from None
    with file:
        if sha256 is not None and sha256_of(file) != sha256:
            raise DataError(
                f"{directory / name}: damaged (its SHA-256 is not that of {MANIFEST}); make this directory again, or "
                "leave it out"
            )
        file.seek(0)
        yield file


def link_or_copy(directory: Path, name: str, target: Path, *, sha256: str, scratch: Path) -> None:
    """Make a hard link to a file of a complete shard directory where the file system can, else a copy.

    The file is compared with its hash first. It appears at `target` by a rename, so what was there before, which may
    be another name of somebody's file, is replaced and never written to.

    Args:
        name: path of the file below `directory`.
        sha256: its hash in the manifest.
        scratch: folder for the temporary name, on the file system of `target`.

    Raises:
        DataError: the file to take over is gone, damaged, or no regular file of the directory.
    """
    temporary = scratch / f".{target.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp"
    try:
        with open_verified(directory, name, sha256) as file:
            if _linked(directory / name, file, temporary):
                os.fsync(file.fileno())  # whoever copied that directory may not have
            else:
                with open(temporary, "xb") as copy:
                    shutil.copyfileobj(file, copy)
                    sync(copy, read_only=True)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def _linked(path: Path, file: IO[bytes], target: Path) -> bool:
    """Link an open file by its path, and return whether that was possible and the path is still that file's."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        return False
    if os.path.samestat(os.lstat(target), os.fstat(file.fileno())):
        return True
    target.unlink()
    return False
