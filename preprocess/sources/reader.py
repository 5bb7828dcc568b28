"""Reading one part of a source: batches of records, and the hash of the part's bytes.

A batch is what about 4 MB of a text hold, or as many rows of a table, so that memory is bounded by bytes and not by
a number of records: 256 conversations may be 100 KB or 100 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.kinds import kind_of
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import RawBatch
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import MAX_RECORD_BYTES, Progress, hash_range


class PartReader:
    """Reads the records of one part of a source.

    Args:
        max_record_bytes: larger records are left out (`too_large`).
    """

    def __init__(self, source: Source, part: Part, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self.source = source
        self.part = part
        self.max_record_bytes = max_record_bytes
        self._progress = Progress()

    @property
    def consumed(self) -> int:
        """Bytes of the part read so far; 0 for kinds of input that cannot tell."""
        return self._progress.consumed

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the part's bytes; to be asked for when `batches` came to its end."""
        if self._progress.hashed:
            return str(self._progress.digest.hexdigest())
        return hash_range(self.source.file, self.part.begin, self.part.end)

    def batches(self) -> Iterator[RawBatch]:
        """Yield the records in order, numbered from 0 within the part.

        Raises:
            DataError: the source is not the file that was planned (which is checked before and after), cannot be
                read, or is damaged in a way that leaves no next record to go on with.
        """
        self.source.check()
        try:
            yield from kind_of(self.source).read(self.source, self.part, self._progress, self.max_record_bytes)
        except OSError as error:
            raise DataError(f"{self.source.path}: cannot be read ({error.strerror or error})") from None
        self.source.check()


def cut(source: Source, target: int) -> list[Part]:
    """Return the parts of a source, of about `target` bytes each.

    Raises:
        DataError: the file is damaged.
    """
    return kind_of(source).cut(source, target)


def whole_of(source: Source) -> Part:
    """Return all of a source as one part.

    Raises:
        DataError: the file is damaged.
    """
    return kind_of(source).whole(source)


def sample(source: Source, count: int, max_record_bytes: int = MAX_RECORD_BYTES) -> list[tuple[int, Any | RecordError]]:
    """Return the first `count` records of a source with their numbers; a RecordError for one that is broken.

    Raises:
        DataError: as for a part.
    """
    reader = PartReader(source, whole_of(source), max_record_bytes)
    records = (record for batch in reader.batches() for record in batch)
    return list(islice(records, count))
