"""Kinds of input file by name. A new kind is one file with a class like these, and one entry in `KINDS`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from sft_shards.preprocess.sources.csv_rows import Csv
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.json_array import JsonArray, JsonObject
from sft_shards.preprocess.sources.jsonl import JsonLines
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import RawBatch
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import Progress
from sft_shards.preprocess.sources.tables import Arrow, Parquet


class InputKind(Protocol):
    """How files of one kind are recognised, cut into parts, and read."""

    name: str
    """`Source.kind` of its files, which the manifest publishes."""
    suffixes: tuple[str, ...]
    """Names that files of a folder must end with to be taken for input, in lower case and without `.gz` or `.zst`."""
    compressible: bool
    """Whether its files may be compressed by gzip or Zstandard as a whole."""

    def matches(self, head: FileHead) -> bool:
        """Return whether a file is of this kind. The first kind in `KINDS` that says so has it."""
        ...

    def cut(self, source: Source, target: int) -> list[Part]:
        """Return the parts of a source, of about `target` bytes of work each.

        They must follow from the file and the target alone, in order, and cover every byte and every record once.

        Raises:
            DataError: the file is damaged.
        """
        ...

    def whole(self, source: Source) -> Part:
        """Return all of a source as one part. Its first records are the sample that formats are detected by.

        Raises:
            DataError: the file is damaged.
        """
        ...

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the records of a part, numbered from 0, in batches that are bounded by bytes.

        Args:
            max_record_bytes: a record of more bytes is a RecordError (`too_large`) in its place. What is held at once
                is a small multiple of this, whatever the file.

        Raises:
            DataError: the file is damaged in a way that leaves no next record to go on with. A record that is broken
                by itself is a RecordError in its place.
        """
        ...

    def keeps_parts_when_appended(self, source: Source) -> bool:
        """Return whether a file that grew at its end keeps its parts but for the last, and each of them its records
        as long as the part behind it is the same (where its last record may end)."""
        ...


_BUILT_IN: tuple[InputKind, ...] = (Parquet(), Arrow(), Csv(), JsonArray(), JsonObject(), JsonLines())

KINDS: dict[str, InputKind] = {kind.name: kind for kind in _BUILT_IN}
"""The kinds by name, in the order in which they are asked whether a file is theirs."""


def kind_of(source: Source) -> InputKind:
    """Return the kind of a source."""
    return KINDS[source.kind]


def suffixes() -> tuple[str, ...]:
    """Return the endings of names that are taken for input in a folder, each once."""
    return tuple(dict.fromkeys(suffix for kind in KINDS.values() for suffix in kind.suffixes))


def recognise(head: FileHead) -> InputKind | None:
    """Return the kind of a file by its name and first bytes; None where no kind knows it."""
    return next((kind for kind in KINDS.values() if kind.matches(head)), None)
