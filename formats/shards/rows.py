"""Reading `rows` files: which record each sequence of a shard came from, with its tokens and trained tokens.

Parquet files are handed to pyarrow open, because it takes a path such as `a:b/c` for an address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sft_shards.formats.shards.contents import open_inside

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
