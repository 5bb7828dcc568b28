"""Input files: finding them, finding out what they contain, and reading records out of them one at a time.

Lines end at a newline byte and nowhere else: U+2028 and U+0085 are ordinary characters inside of a JSON text.
Every record has a number, counted from 0 in the order of the file; blank lines are no records.
"""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from formats.errors import DataError, RecordError, UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
HEAD = 1 << 20
"""Bytes at the beginning of a file from which its kind is found out."""
PARQUET_BATCH = 1024
DECODER = json.JSONDecoder()
SPACE = " \t\r\n"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file."""

    path: str
    """As given, or as found in a folder that was."""
    kind: str
    """`jsonl` (a record per line), `json` (one array of records, or one record), `parquet`."""
    bytes: int
    sha256: str = ""
    """Of the whole file; set when the job is planned."""
    format: str = ""
    """Name of the record format; set when the job is planned."""

    def as_dict(self) -> dict[str, Any]:
        """For the plan and the manifest."""
        return asdict(self)


Item = tuple[int, Any | RecordError]
"""A record's number with the record, or with the reason why it could not be read."""


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The files that inputs name: files, globs, and folders (all that lies below them, in sorted order).

    Raises:
        UsageError: an input that is not there, a folder or glob with nothing readable, an empty file.
    """
    paths: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.suffix in SUFFIXES)
            if not found:
                raise UsageError(f"{given}: nothing readable in this folder; looked for {', '.join(SUFFIXES)}")
        elif path.is_file():
            found = [path]
        else:
            found = sorted(Path(name) for name in glob.glob(given, recursive=True) if Path(name).is_file())
            if not found:
                raise UsageError(f"{given}: no such file or folder; check the path (globs need quotes in the shell)")
        paths += [entry for entry in found if entry not in paths]
    return [_source(path) for path in paths]


def _source(path: Path) -> Source:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if not head.strip():
        raise UsageError(f"{path}: empty; remove it from the inputs")
    return Source(path=str(path), kind=_kind(path, head, len(head) == size), bytes=size)


def _kind(path: Path, head: bytes, is_all: bool) -> str:
    if head[:4] == b"PAR1":
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace").lstrip(SPACE)
    if text[0] not in '[{"':
        raise UsageError(f"{path}: neither JSON nor Parquet (begins with {text[:20]!r}); see the formats in the README")
    line, newline, rest = text.partition("\n")
    if newline or is_all:
        try:
            value = json.loads(line)
        except ValueError:
            value = None  # the first line is a part of something larger, or broken
        if value is not None and (rest.strip(SPACE) or not isinstance(value, list) or _is_conversation(value)):
            return "jsonl"
    if text[0] == "[":
        return "jsonl" if _is_conversation(_first_item(text)) and not newline else "json"
    return "json" if text[0] == "{" and is_all and _is_one_value(text) else "jsonl"


def _is_conversation(value: list[Any]) -> bool:
    """Whether a list is a bare list of messages, and not a list of records."""
    return bool(value) and isinstance(value[0], dict) and bool({"role", "from"} & set(value[0]))


def _first_item(text: str) -> list[Any]:
    try:
        return [DECODER.raw_decode(text, len(text) - len(text[1:].lstrip(SPACE)))[0]]
    except ValueError:
        return []


def _is_one_value(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def read(source: Source) -> Iterator[Item]:
    """The records of a source, in order.

    Raises:
        DataError: the file is gone, or damaged in a way that leaves no next record to go on with.
    """
    try:
        if source.kind == "parquet":
            yield from _read_parquet(source)
            return
        with open(source.path, "rb") as file:
            yield from (_read_lines(file) if source.kind == "jsonl" else _read_array(file, source.path))
    except OSError as error:
        raise DataError(f"{source.path}: cannot be read ({error.strerror})") from None


def _read_lines(file: IO[bytes]) -> Iterator[Item]:
    number = 0
    for line in file:
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        yield number, _parse(line)
        number += 1


def _parse(line: bytes) -> Any | RecordError:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        return RecordError("broken_utf8", f"byte {error.start} is not UTF-8")
    except json.JSONDecodeError as error:
        return RecordError("broken_json", f"{error.msg} at character {error.pos}")
    except RecursionError:
        return RecordError("broken_json", "nested too deeply")


def _read_array(file: IO[bytes], path: str) -> Iterator[Item]:
    """The items of one JSON array (or one object by itself), holding no more than a piece of the file at a time."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    buffer = text.read(HEAD).lstrip(SPACE)
    if buffer.startswith("{"):
        yield 0, json.loads(buffer + text.read())
        return
    at, number = 1, 0

    def more() -> bool:
        nonlocal buffer, at
        piece = text.read(max(HEAD, len(buffer) - at))
        buffer, at = buffer[at:] + piece, 0
        return bool(piece)

    def skip(characters: str) -> str:
        nonlocal at
        while True:
            while at < len(buffer) and buffer[at] in characters:
                at += 1
            if at < len(buffer):
                return buffer[at]
            if not more():
                return ""

    try:
        while (char := skip(SPACE)) != "]":
            if not char:
                raise DataError(f"{path}: the array ends in the middle, after record {number - 1}; it was cut off")
            while True:
                try:
                    value, end = DECODER.raw_decode(buffer, at)
                    if end < len(buffer) or isinstance(value, (dict, list, str)) or not more():
                        at = min(end, len(buffer))
                        break
                except json.JSONDecodeError as error:
                    if not more():
                        raise DataError(
                            f"{path}: record {number} of the array is broken JSON ({error.msg}), and what follows "
                            "cannot be told apart; mend it, or convert the file to JSONL"
                        ) from None
            yield number, value
            number += 1
            if (char := skip(SPACE)) == ",":
                at += 1
            elif char != "]":
                raise DataError(
                    f"{path}: no comma after record {number - 1} of the array; mend it, or convert to JSONL"
                )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 near record {number} ({error.reason})") from None


def _read_parquet(source: Source) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(source.path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        message = str(error).splitlines()[0]
        raise DataError(f"{source.path}: damaged Parquet after record {number - 1} ({message})") from None
