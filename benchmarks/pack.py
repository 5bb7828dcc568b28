"""Planning packs: processor seconds and fill beside TRL's best-fit-decreasing and a first-fit-decreasing loop.

    python benchmarks/pack.py [--capacity 8192] [--counts 100000 10000000] [--first-fit-at-most 100000]

Lengths are log-normal (median 490 tokens, sigma 1), cut at the capacity. TRL (`pip install trl datasets`) is left out
where it is not installed. Everything runs on one core. docs/packing.md quotes the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards.packing import pack


def first_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """The number of packs, by the loop that every tutorial shows."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        for number, space in enumerate(free):
            if space >= length:
                free[number] -= length
                break
        else:
            free.append(capacity - length)
    return len(free)


def ours(lengths: NDArray[np.int32], capacity: int) -> int:
    """The number of packs of `formats.shards.packing`, with rows and packs shuffled, checked for completeness."""
    packs = pack(lengths, capacity, 1234)
    return len(packs.bounds) - 1


def trl(lengths: NDArray[np.int32], capacity: int) -> int:
    """The number of packs of TRL's `bfd` strategy; its conversations are lists in Arrow, of one token repeated."""
    import pyarrow as pa
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ids = pa.LargeListArray.from_arrays(bounds, np.zeros(bounds[-1], dtype=np.uint8))
    data = Dataset(pa.table({"input_ids": ids}))
    began = time.process_time()
    packed = pack_dataset(data, capacity, "bfd", map_kwargs={"batch_size": None})
    trl.seconds = time.process_time() - began  # type: ignore[attr-defined]
    return len(packed)


def measure(function: Callable[[], int]) -> tuple[float, int]:
    """Processor seconds, which depend little on what else the machine does, and packs."""
    began = time.process_time()
    packs = function()
    return time.process_time() - began, packs


def main() -> None:
    """Print a line per number of conversations and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capacity", type=int, default=8192)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--first-fit-at-most", type=int, default=100_000)
    parser.add_argument("--trl-at-most", type=int, default=100_000)
    options = parser.parse_args()
    print(f"{'conversations':>13}  {'method':<28} {'CPU s':>9} {'times ours':>10} {'packs':>9} {'filled':>9}")
    for count in options.counts:
        drawn = np.random.default_rng(0).lognormal(6.2, 1.0, count)
        lengths = np.clip(drawn, 1, options.capacity).astype(np.int32)
        total = int(lengths.sum(dtype=np.int64))
        found = {"sft-shards": measure(lambda lengths=lengths: ours(lengths, options.capacity))}  # type: ignore[misc]
        if count <= options.first_fit_at_most:
            listed = lengths.tolist()
            found["first-fit decreasing, Python"] = measure(
                lambda listed=listed: first_fit_decreasing(listed, options.capacity)  # type: ignore[misc]
            )
        if count <= options.trl_at_most:
            try:
                seconds, packs = measure(lambda lengths=lengths: trl(lengths, options.capacity))  # type: ignore[misc]
                found["TRL bfd"] = (trl.seconds, packs)  # type: ignore[attr-defined]
            except ImportError:
                print("TRL is not installed")
        base = found["sft-shards"][0]
        for name, (seconds, packs) in found.items():
            fill = total / (packs * options.capacity)
            print(f"{count:>13,}  {name:<28} {seconds:>9.2f} {seconds / base:>10.1f} {packs:>9,} {fill:>9.4%}")


if __name__ == "__main__":
    main()
