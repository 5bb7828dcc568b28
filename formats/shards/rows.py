"""Reading `rows` files: which record each sequence of a shard came from, with its tokens and trained tokens.

Parquet files are handed to pyarrow open, because it takes a path such as `a:b/c` for an address.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError, first_line
from sft_shards.formats.shards.contents import open_inside
from sft_shards.formats.shards.directory import Split

ROW_COLUMNS = {
    "source": "dictionary<values=string, indices=int32, ordered=0>",
    "record": "int64",
    "tokens": "int32",
    "trained_tokens": "int32",
}
"""The columns of a rows file, with the Arrow type of each."""
TURNS = "turns"
"""The column that a rows file has besides where conversations are unrolled: which turns a sequence trains."""


def read_rows(
    path: Path, columns: list[str] | None = None, *, root: Path | None = None, count: int | None = None
) -> Any:
    """Read a shard's `rows` file as an Arrow table.

    Args:
        columns: which of `ROW_COLUMNS` to read (default: all); `turns` comes with them where the file has it.
        count: rows that it must have, checked before any is read, since a few bytes can stand for millions of rows.
        root: the directory that it lies in, below which no link is followed (default: the folder of `path`).

    The file is Arrow's own and is read in this thread. Of a file of Python's, a thread of Arrow's pool may let go
    last; where Python is ending by then, that thread is ended inside of C++, and the process aborts.

    Raises:
        pyarrow.ArrowException, OSError: it is no readable Parquet file.
        DataError: it is a link, or no file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = root or path.parent
    try:
        # Arrow opens the file once more by its descriptor, since a path could lead elsewhere by then.
        with open_inside(root, path.relative_to(root)) as found, pa.OSFile(f"/dev/fd/{found.fileno()}") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            if count is not None and parquet.metadata.num_rows != count:
                raise pa.ArrowInvalid(f"{parquet.metadata.num_rows} rows, not {count}")
            schema = parquet.schema_arrow
            for name in columns or ROW_COLUMNS:
                number = schema.get_field_index(name)
                if number < 0 or str(schema.field(number).type) != ROW_COLUMNS.get(name):
                    raise pa.ArrowInvalid(f"no column {name} of type {ROW_COLUMNS.get(name)}")
            number = schema.get_field_index(TURNS)
            kind = schema.field(number).type if number >= 0 else pa.list_(pa.int32())
            if not pa.types.is_list(kind) or kind.value_type != pa.int32():
                raise pa.ArrowInvalid(f"column {TURNS} is not a list of int32")
            more = [TURNS] if number >= 0 else []
            table = parquet.read(columns and [*columns, *more], use_threads=False)
            if more and table[TURNS].combine_chunks().flatten().null_count:
                raise pa.ArrowInvalid("a value is null")
    except UnicodeDecodeError as error:  # a damaged name in the schema
        raise pa.ArrowInvalid(str(error)) from None
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a value is null")
    return table


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a sequence comes from."""

    source: str
    """The input file, as the job named it."""
    record: int
    """Number of the record in it, from 0."""
    turns: tuple[int, ...] | None
    """Numbers of the turns that it trains, where conversations are unrolled."""


class Origins:
    """The sources and records of a split, read shard by shard when they are asked for."""

    def __init__(self, directory: Path, split: Split) -> None:
        self.directory = directory
        self.split = split
        self._tables: dict[str, Any] = {}

    def __getitem__(self, row: int) -> Origin:
        """Look up a row.

        Raises:
            DataError: the file of rows is damaged.
        """
        shard, inner = self.split.locate(row)
        one = self._table(shard.info.name, shard.info.sequences).slice(inner, 1).to_pylist()[0]
        turns = one.get(TURNS)
        return Origin(source=one["source"], record=one["record"], turns=None if turns is None else tuple(turns))

    def matching(self, source: str, record: int | None) -> NDArray[np.int64]:
        """Return int64[n], rising: the rows of sources whose path holds a text, and of a record where it is named.

        Raises:
            UsageError: no source's path holds the text.
        """
        found, base, paths = [], 0, set()
        for shard in self.split.shards:
            table = self._table(shard.info.name, shard.info.sequences)
            own = set(table["source"].unique().to_pylist())
            paths |= own
            if any(source in path for path in own):
                chosen = np.array([source in path for path in table["source"].to_pylist()])
                if record is not None:
                    chosen &= np.array(table["record"].to_pylist()) == record
                found.append(np.flatnonzero(chosen) + base)
            base += shard.info.sequences
        if not found:
            known = ", ".join(sorted(paths)[:5]) + (" and more" if len(paths) > 5 else "")
            raise UsageError(f"--source {source}: no source of split {self.split.name} has this in its path; {known}")
        return np.concatenate(found)

    def _table(self, name: str, count: int) -> Any:
        import pyarrow as pa

        if name not in self._tables:
            path = self.directory / self.split.name / "rows" / f"{name}.parquet"
            try:
                self._tables[name] = read_rows(path, ["source", "record"], root=self.directory, count=count)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: cannot be read ({first_line(error)}); see 'sft-preprocess verify'") from None
        return self._tables[name]
