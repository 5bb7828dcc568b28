"""Batches of raw records, held as the file holds them, so that many can be read at once.

Whatever the form, `RawBatch.values` gives single records for reading one by one: parsed values, or the reasons why a
record has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import number_array
from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

SPACE = b" \t\r\n"
FEW = 16
"""Up to this many rows, converting a table row by row is faster than converting all of it."""


class RawBatch:
    """Consecutive records of a part, as values.

    Args:
        first: the number of the first record within its part; the others follow.
        values: parsed records, or the reasons why there is none.
    """

    def __init__(self, first: int, values: Sequence[Any | RecordError] = ()) -> None:
        self.first = first
        self._values = values

    @property
    def numbers(self) -> NDArray[np.int64]:
        """int64[n]: the number of each record within its part."""
        return np.arange(self.first, self.first + len(self))

    def __len__(self) -> int:
        return len(self._values)

    def values(self, rows: Sequence[int]) -> Iterator[Any | RecordError]:
        """Yield the value of each of some rows, or a RecordError that says why it has none."""
        return (self._values[row] for row in rows)

    def part(self, begin: int, end: int) -> RawBatch:
        """Return the records at the positions [begin, end); they keep their numbers."""
        return RawBatch(self.first + begin, self._values[begin:end])

    def __iter__(self) -> Iterator[tuple[int, Any | RecordError]]:
        """Yield the number of each record within its part, with its value."""
        return zip(self.numbers.tolist(), self.values(range(len(self))), strict=True)


class JsonBatch(RawBatch):
    """Consecutive records as JSON texts, not parsed.

    Args:
        raw: the bytes of all texts, with white space between them.
        begins, ends: int64[n] each: text i is `raw[begins[i]:ends[i]]`. White space around a text is cut off here.
    """

    def __init__(self, first: int, raw: bytes | memoryview, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        super().__init__(first)
        self.raw, self.begins, self.ends = raw, begins, ends
        self._parsed: dict[int, Any | RecordError] = {}
        for row in self._with_space_around():
            text = bytes(raw[begins[row] : ends[row]])
            begins[row] += len(text) - len(text.lstrip(SPACE))
            ends[row] = begins[row] + len(text.strip(SPACE))

    @classmethod
    def of_lines(cls, first: int, lines: bytes) -> JsonBatch:
        """Make one of the lines that are not blank."""
        breaks = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == ord("\n"))
        begins, ends = np.append(0, breaks + 1), np.append(breaks, len(lines))
        batch = cls(first, lines, begins, ends)
        kept = ends > begins
        for row in batch._with_space_around():
            kept[row] = not lines[begins[row] : ends[row]].isspace()
        batch.begins, batch.ends = begins[kept], ends[kept]
        return batch

    @classmethod
    def of_texts(cls, first: int, texts: Sequence[bytes]) -> JsonBatch:
        """Make one of single texts, each a record even if it is blank."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        ends = np.cumsum(lengths + 1) - 1
        return cls(first, b"\n".join(texts), ends - lengths, ends)

    def _with_space_around(self) -> list[int]:
        """Return the rows whose text begins or ends with white space or a control character."""
        values = np.frombuffer(self.raw, dtype=np.uint8)
        filled = np.flatnonzero(self.ends > self.begins)
        low = (values[self.begins[filled]] <= ord(" ")) | (values[self.ends[filled] - 1] <= ord(" "))
        rows: list[int] = filled[low].tolist()
        return rows

    def __len__(self) -> int:
        return len(self.begins)

    def values(self, rows: Sequence[int]) -> Iterator[Any | RecordError]:
        """Parse some rows, one after the other."""
        for row, (begin, end) in zip(rows, self._bounds(rows), strict=True):
            yield self._parsed.pop(row) if row in self._parsed else parse(bytes(self.raw[begin:end]))

    def keep(self, row: int, value: Any | RecordError) -> None:
        """Keep the value of a row for whoever asks for it next."""
        self._parsed[row] = value

    def part(self, begin: int, end: int) -> JsonBatch:
        """See `RawBatch.part`; the bytes are shared."""
        begins, ends = self.begins[begin:end], self.ends[begin:end]
        start, stop = (int(begins[0]), int(ends[-1])) if len(begins) else (0, 0)
        return JsonBatch(self.first + begin, memoryview(self.raw)[start:stop], begins - start, ends - start)

    def texts(self, rows: Sequence[int]) -> list[bytes]:
        """Return the JSON texts of some rows."""
        return [bytes(self.raw[begin:end]) for begin, end in self._bounds(rows)]

    def _bounds(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        places = np.asarray(rows, dtype=np.int64)
        return zip(self.begins[places].tolist(), self.ends[places].tolist(), strict=True)

    def take(self, rows: Sequence[int]) -> JsonBatch:
        """Return a batch of some rows, rising; a range is a view of the same bytes, anything else a copy."""
        if not isinstance(rows, range):
            return JsonBatch.of_texts(self.first, self.texts(rows))
        return self.part(rows.start, rows.stop)


class TableBatch(RawBatch):
    """Consecutive records as rows of an Arrow table."""

    def __init__(self, first: int, columns: pa.RecordBatch) -> None:
        super().__init__(first)
        self.columns = columns

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def values(self, rows: Sequence[int]) -> Iterator[dict[str, Any] | RecordError]:
        """Yield some rows as dicts; a RecordError for one with a value that Python has no type for."""
        if len(rows) > FEW:
            try:
                values = self.columns.to_pylist()
            except (ValueError, OverflowError, TypeError):
                pass  # of some row, which is found one by one
            else:
                return (values[row] for row in rows)
        return map(self._value, rows)

    def _value(self, row: int) -> dict[str, Any] | RecordError:
        try:
            return dict(self.columns.slice(row, 1).to_pylist()[0])
        except (ValueError, OverflowError, TypeError) as error:  # a date in the year 300,000, say
            return RecordError("wrong_type", f"the row cannot be read as JSON values ({type(error).__name__})")

    def part(self, begin: int, end: int) -> TableBatch:
        """See `RawBatch.part`. The rows are copied: a slice of a list column still has the items of all lists."""
        return TableBatch(self.first + begin, self.columns.take(number_array(np.arange(begin, end))))


def too_large(max_record_bytes: int) -> RecordError:
    """Return the reason why a record of more than so many bytes is left out."""
    return RecordError("too_large", f"more than --max-record-bytes {max_record_bytes}")


def within(batch: JsonBatch, max_record_bytes: int) -> Iterator[RawBatch]:
    """Yield a batch in the pieces between texts that are too large, each of which becomes a RecordError."""
    begin = 0
    for row in np.flatnonzero(batch.ends - batch.begins > max_record_bytes).tolist():
        if begin < row:
            yield batch.part(begin, row)
        yield RawBatch(batch.first + row, [too_large(max_record_bytes)])
        begin = row + 1
    if begin == 0:
        yield batch
    elif begin < len(batch):
        yield batch.part(begin, len(batch))


def parse(text: bytes) -> Any | RecordError:
    """Return the value of a JSON text, or a RecordError that says why it has none.

    The reasons are `broken_json`, `broken_utf8` and `nested_too_deeply`.
    """
    try:
        return parse_json(text.decode("utf-8"))
    except RecordError as error:
        return error.kept()
    except UnicodeDecodeError as error:
        return RecordError("broken_utf8", f"byte {error.start} is not UTF-8")
    except json.JSONDecodeError as error:
        return RecordError("broken_json", f"{error.msg} at character {error.pos}")
    except ValueError as error:
        return RecordError("broken_json", str(error)[:200])
