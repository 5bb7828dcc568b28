"""`rejects`: how many records were left out and why, and the records themselves, read again out of their sources.

It works on a finished directory, and on a job that was refused because it lost too much. A record is found by its
number, so its file is read from the beginning up to it; a file that has changed since is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sft_shards.formats.errors import DataError, RecordError, UsageError, nearest
from sft_shards.formats.reasons import REASONS
from sft_shards.formats.shards import Manifest
from sft_shards.formats.terminal import UNLIMITED, printable, printable_text, quoted
from sft_shards.preprocess.directories.tables import Column, folded, table
from sft_shards.preprocess.sources import JsonBatch, PartReader, Source, whole_of
from sft_shards.preprocess.sources.find import open_source
from sft_shards.preprocess.sources.streams import MAX_RECORD_BYTES
from sft_shards.preprocess.tasks.losses import Loss, read_losses
from sft_shards.preprocess.tasks.output import look
from sft_shards.preprocess.tasks.plan import Plan
from sft_shards.preprocess.tasks.writer import RejectLine, read_rejects

CHARACTERS = 2000
"""Characters of a record that are shown."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A record that was left out."""

    line: RejectLine
    value: Any
    """The record; None where it cannot be shown."""
    text: str
    """What the file holds of it, where it is no record that can be parsed; else ""."""
    missing: str
    """Why it cannot be shown; else ""."""

    def as_dict(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        line = self.line
        head = {"source": line.source, "record": line.record, "reason": line.reason, "detail": line.detail}
        if self.missing:
            return {**head, "missing": self.missing}
        return {**head, "text": self.text} if self.text else {**head, "value": self.value}


@dataclass(frozen=True, kw_only=True)
class Rejects:
    """What a job left out."""

    losses: tuple[Loss, ...]
    """Counts by source and reason, those asked for."""
    read: int | None
    """Records that the job read; None where it was not published."""
    rejects: tuple[Reject, ...]
    """The first ones of each source and reason."""

    def as_dict(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        counts = [{"source": one.source, "reason": one.reason, "records": one.records} for one in self.losses]
        return {"read": self.read, "left_out": counts, "records": [one.as_dict() for one in self.rejects]}


def find_rejects(directory: Path, *, reason: str = "", source: str = "", count: int = 1) -> Rejects:
    """Read what a job left out.

    Args:
        reason: look at this one alone; "" for all.
        source: part of the path of the sources that are looked at; "" for all.
        count: records of each source and reason that are shown.

    Raises:
        UsageError: there is no job, or it left nothing out for this reason or of such a source.
        DataError: `rejects.jsonl` or the manifest is damaged.
    """
    complete = look(directory).is_complete
    manifest = Manifest.read(directory) if complete else None
    plan = None if complete else Plan.read(directory)
    losses = read_losses(directory)
    known = {loss.reason for loss in losses}
    if reason and reason not in known:
        what = nearest(reason, known) if known else "nothing was left out"
        raise UsageError(f"{directory}: nothing was left out for {reason!r}; {what}")
    chosen = tuple(one for one in losses if (not reason or one.reason == reason) and source in one.source)
    if losses and not chosen:
        raise UsageError(f"{directory}: nothing was left out of a source with {source!r} in its path")
    if manifest is not None:
        limit = manifest.config.get("max_record_bytes")
        files = {one.path: (Path(one.path), one.bytes) for one in manifest.sources}
        read = manifest.counts.read
    else:
        assert plan is not None
        limit, read = plan.config.max_record_bytes, None
        files = {one.path: (Path(one.file), one.bytes) for one in plan.sources}
    wanted = {(one.source, one.reason): count for one in chosen}
    lines = []
    for line in read_rejects(directory):
        if wanted.get((line.source, line.reason), 0) > 0:
            wanted[line.source, line.reason] -= 1
            lines.append(line)
    most = limit if isinstance(limit, int) else MAX_RECORD_BYTES
    rejects = [one for path in dict.fromkeys(line.source for line in lines) for one in _read(path, lines, files, most)]
    order = {(one.source, one.reason): at for at, one in enumerate(chosen)}
    rejects.sort(key=lambda one: order[one.line.source, one.line.reason])
    return Rejects(losses=chosen, read=read, rejects=tuple(rejects))


def _read(path: str, lines: Sequence[RejectLine], files: Mapping[str, tuple[Path, int]], most: int) -> Iterator[Reject]:
    """Read the records of one source."""
    own = [line for line in lines if line.source == path]
    try:
        file, size = files[path]
        source = open_source(file, path)
        if source.bytes != size:
            raise DataError(f"{path}: has {source.bytes:,} bytes, and had {size:,} when it was read")
        found = dict(_records(source, {line.record for line in own}, most))
    except (UsageError, DataError, KeyError) as error:
        why = f"{path}: not one of the sources" if isinstance(error, KeyError) else str(error)
        yield from (Reject(line=line, value=None, text="", missing=why) for line in own)
        return
    for line in own:
        value, text = found.get(line.record, (None, ""))
        missing = "" if line.record in found else f"{path}: has no record {line.record}"
        yield Reject(line=line, value=value, text=text, missing=missing)


def _records(source: Source, numbers: set[int], most: int) -> Iterator[tuple[int, tuple[Any, str]]]:
    """Yield records of a source by number: the value, or what the file holds where it has none."""
    last = max(numbers)
    for batch in PartReader(source, whole_of(source), most).batches():
        rows = [number - batch.first for number in sorted(numbers) if batch.first <= number < batch.first + len(batch)]
        for row, value in zip(rows, batch.values(rows), strict=True):
            if not isinstance(value, RecordError):
                yield batch.first + row, (value, "")
            elif isinstance(batch, JsonBatch):
                yield batch.first + row, (None, batch.texts([row])[0].decode("utf-8", "backslashreplace"))
            else:
                yield batch.first + row, (None, f"({value.detail})")
        if batch.first + len(batch) > last:
            return


def lines(found: Rejects, *, colour: bool, width: int = UNLIMITED) -> Iterator[str]:
    """Give what was left out in lines for people: counts, then records with why and what helps.

    Args:
        width: columns of the terminal.
    """
    if not found.losses:
        yield "nothing was left out"
        return
    columns = [Column(title="source", gives_way=True), Column(title="reason"), Column(title="records", right=True)]
    head, *rows = table(columns, [(one.source, one.reason, f"{one.records:,}") for one in found.losses], width=width)
    yield click.style(head, bold=True) if colour else head
    yield from rows
    total = sum(one.records for one in found.losses)
    yield f"{total:,} left out" + (f" of {found.read:,} records" if found.read is not None else "")
    for one in found.rejects:
        yield from _shown(one, colour=colour, width=width)


def _shown(reject: Reject, *, colour: bool, width: int) -> Iterator[str]:
    line = reject.line
    yield ""
    for text in folded(printable(f"record {line.record} of {line.source}: {line.reason}: {line.detail}"), width):
        yield click.style(text, bold=True) if colour else text
    if line.reason in REASONS:
        yield from folded(f"remedy: {REASONS[line.reason].remedy}", width)
    if reject.missing:
        yield from folded(printable(f"the record cannot be shown: {reject.missing}"), width)
        return
    text = reject.text or json.dumps(reject.value, ensure_ascii=False, indent=2, default=str)
    if len(text) > CHARACTERS:
        text = f"{text[:CHARACTERS]}… {len(text) - CHARACTERS:,} more characters"
    yield quoted(printable_text(text))
