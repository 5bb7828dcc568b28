"""The first bytes of a file: what kinds of input recognise their files by.

A file's contents decide, since names lie; its name decides only where contents cannot (CSV).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sft_shards.preprocess.sources.streams import without_compression_suffix

HEAD = 1 << 20
"""Bytes of a file that are looked at."""
SPACE = " \t\r\n"


@dataclass(frozen=True)
class FileHead:
    """A file's name and its first bytes, decompressed."""

    name: str
    """The file's name as the user gave it."""
    data: bytes
    """Its first `HEAD` bytes, or all."""

    @property
    def is_whole_file(self) -> bool:
        """Whether the file has no more bytes than these."""
        return len(self.data) < HEAD

    @property
    def uncompressed_name(self) -> str:
        """The name in lower case, without `.gz` or `.zst`."""
        return without_compression_suffix(self.name)

    @cached_property
    def text(self) -> str:
        """The bytes as text, without a byte order mark and white space in front."""
        return self.data.decode("utf-8-sig", errors="replace").lstrip(SPACE)

    @cached_property
    def first_line(self) -> Any:
        """The value of the first line if it is a JSON text and complete, else None."""
        line, newline, _ = self.text.partition("\n")
        return _parsed(line) if newline or self.is_whole_file else None

    @property
    def first_line_is_a_record(self) -> bool:
        """Whether the first line is a record, and not a part of a JSON value that goes on behind it, or all of one
        array of records."""
        if self.first_line is None:
            return False
        more = self.text.partition("\n")[2].strip(SPACE)
        return bool(more) or not isinstance(self.first_line, list) or is_message_list(self.first_line)

    @cached_property
    def value(self) -> Any:
        """The value of the file if it is one JSON text and read to its end, else None."""
        return _parsed(self.text) if self.is_whole_file else None

    @property
    def first_item(self) -> Any:
        """The first item of an array, as far as it can be read; else None."""
        begin = len(self.text) - len(self.text[1:].lstrip(SPACE))
        try:
            return json.JSONDecoder().raw_decode(self.text, begin)[0]
        except (ValueError, RecursionError):
            return None


def is_message_list(value: list[Any]) -> bool:
    """Return whether a list is a bare list of messages, and not a list of records."""
    return bool(value) and isinstance(value[0], dict) and bool({"role", "from"} & set(value[0]))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
