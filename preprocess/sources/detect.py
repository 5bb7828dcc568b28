"""Finding out what a file contains from its first bytes; its name decides only where bytes cannot (CSV)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import compression_of, read_head

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".csv", ".tsv")
PACKED = (".gz", ".zst")
HEAD = 1 << 20
"""Bytes from which a file's kind is found out."""
DECODER = json.JSONDecoder()
SPACE = " \t\r\n"


def readable(path: Path) -> bool:
    """Whether a file in a folder is taken for an input, by its name."""
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return name.endswith(SUFFIXES)


def look_at(file: Path, name: str) -> Source:
    """A file as a source.

    Args:
        name: what it is called in messages and in what is published.

    Raises:
        UsageError: it cannot be read, is empty, or contains nothing that is known.
    """
    try:
        state = os.stat(file)
        compression = compression_of(read_head(str(file), "", 4))
        head = read_head(str(file), compression, HEAD)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from None
    if not head.strip():
        raise UsageError(f"{name}: empty; remove it from the inputs")
    kind = _kind(name, head, len(head) < HEAD)
    if compression and kind in ("parquet", "arrow"):
        raise UsageError(f"{name}: {kind} inside of {compression}; unpack it first")
    return Source(
        path=name,
        file=os.path.abspath(file),
        kind=kind,
        compression=compression,
        bytes=state.st_size,
        mtime_ns=state.st_mtime_ns,
    )


def _kind(name: str, head: bytes, is_all: bool) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    lower = name.lower()
    for suffix in PACKED:
        lower = lower.removesuffix(suffix)
    if lower.endswith((".csv", ".tsv")):
        return "csv"
    text = head.decode("utf-8-sig", errors="replace").lstrip(SPACE)
    if text[:1] not in ("[", "{", '"'):
        raise UsageError(f"{name}: neither JSON nor Parquet (begins with {text[:20]!r}); see the formats in the README")
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
    return "object" if text[0] == "{" and is_all and _is_one_value(text) else "jsonl"


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
