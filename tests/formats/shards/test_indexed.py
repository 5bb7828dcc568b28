"""Our writer against the stock reader, and our reader against damage."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from writable import writable

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import IndexedReader, IndexedWriter, token_dtype
from sft_shards.formats.shards.indexed import index_bytes


def write(prefix: Path, sequences: list[list[int]], dtype: str = "uint16", limit: int = 65_500) -> None:
    writer = IndexedWriter(prefix, np.dtype(dtype), limit=limit)
    for sequence in sequences:
        writer.append(np.asarray(sequence), np.asarray([len(sequence)]))
    writer.close()


SEQUENCES = st.lists(st.lists(st.integers(0, 65_499), min_size=1, max_size=20), min_size=1, max_size=30)


@pytest.mark.megatron
@given(SEQUENCES, st.sampled_from(["uint16", "int32", "uint8"]))
def test_stock_reader_reads_what_we_write(tmp_path_factory, sequences, dtype):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    if dtype == "uint8":
        sequences = [[item % 256 for item in sequence] for sequence in sequences]
    prefix = tmp_path_factory.mktemp("stock") / "00000"
    write(prefix, sequences, dtype)
    stock = IndexedDataset(str(prefix))
    assert [stock[row].tolist() for row in range(len(stock))] == sequences
    assert stock[0].dtype == np.dtype(dtype)
    assert stock.document_indices.tolist() == list(range(len(sequences) + 1))
    assert prefix.with_suffix(".idx").stat().st_size == 42 + 20 * len(sequences)
    ours = IndexedReader(prefix)
    ours.check_layout()
    assert [ours[row].tolist() for row in range(len(ours))] == sequences


@pytest.mark.unit
@given(SEQUENCES)
def test_we_read_what_the_stock_builder_writes(tmp_path_factory, sequences):
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    prefix = tmp_path_factory.mktemp("built") / "00000"
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sequence in sequences:
        builder.add_document(torch.tensor(sequence), [len(sequence)])
    builder.finalize(f"{prefix}.idx")
    mine = prefix.with_name("mine")
    write(mine, sequences)
    assert mine.with_suffix(".idx").read_bytes() == prefix.with_suffix(".idx").read_bytes()
    assert mine.with_suffix(".bin").read_bytes() == prefix.with_suffix(".bin").read_bytes()


@pytest.mark.unit
def test_pointers_do_not_overflow_past_two_gib():
    lengths = np.full(5, 2**30, dtype=np.int32)
    raw = index_bytes(lengths, np.dtype(np.int32))
    assert struct.unpack_from("<5q", raw, 34 + 4 * 5) == tuple(row * 2**32 for row in range(5))


@pytest.mark.unit
def test_many_sequences_at_once_equal_one_by_one(tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    write(one, [[1, 2], [3], [4, 5, 6]])
    writer = IndexedWriter(many, np.dtype("uint16"), limit=100)
    writer.append(np.arange(1, 7), np.asarray([2, 1, 3]))
    writer.close()
    assert one.with_suffix(".bin").read_bytes() == many.with_suffix(".bin").read_bytes()
    assert one.with_suffix(".idx").read_bytes() == many.with_suffix(".idx").read_bytes()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("items", "lengths"), [([70_000], [1]), ([100], [1]), ([-1], [1]), ([1, 2], [2, 0]), ([1], [2])]
)
def test_items_that_do_not_fit_are_refused(tmp_path, items, lengths):
    writer = IndexedWriter(tmp_path / "x", np.dtype("uint16"), limit=100)
    with pytest.raises(ValueError, match=r"outside|do not cut"):
        writer.append(np.asarray(items), np.asarray(lengths))


@pytest.mark.unit
@pytest.mark.parametrize(("vocabulary", "dtype"), [(65_499, "uint16"), (65_500, "int32"), (151_665, "int32")])
def test_token_dtype(vocabulary, dtype):
    assert token_dtype(vocabulary) == np.dtype(dtype)


DAMAGE = {
    "truncated bin": (".bin", lambda raw: raw[:-1]),
    "extended bin": (".bin", lambda raw: raw + b"\0"),
    "truncated idx": (".idx", lambda raw: raw[:-1]),
    "extended idx": (".idx", lambda raw: raw + b"\0"),
    "no idx to speak of": (".idx", lambda raw: raw[:10]),
    "magic": (".idx", lambda raw: b"X" + raw[1:]),
    "version": (".idx", lambda raw: raw[:9] + b"\2" + raw[10:]),
    "dtype": (".idx", lambda raw: raw[:17] + b"\x63" + raw[18:]),
    "length": (".idx", lambda raw: raw[:34] + b"\x09" + raw[35:]),
    "count": (".idx", lambda raw: raw[:18] + b"\x01" + raw[19:]),
}


@pytest.mark.unit
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_pair_does_not_open(tmp_path, name):
    suffix, damage = DAMAGE[name]
    write(tmp_path / "x", [[1, 2, 3], [4]])
    path = writable((tmp_path / "x").with_suffix(suffix))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=str(path.with_suffix(""))):
        IndexedReader(tmp_path / "x")


@pytest.mark.unit
def test_a_moved_pointer_is_found(tmp_path):
    write(tmp_path / "x", [[1, 2, 3], [4]])
    path = writable(tmp_path / "x.idx")
    raw = bytearray(path.read_bytes())
    raw[34 + 8 + 8] ^= 2  # the second pointer
    path.write_bytes(raw)
    with pytest.raises(DataError, match="pointers"):
        IndexedReader(tmp_path / "x").check_layout()


@pytest.mark.unit
def test_a_missing_file_is_named(tmp_path):
    write(tmp_path / "x", [[1]])
    (tmp_path / "x.bin").unlink()
    with pytest.raises(DataError, match=r"x\.bin: missing"):
        IndexedReader(tmp_path / "x")
