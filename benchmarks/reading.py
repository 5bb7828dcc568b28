"""Reading packs: samples of the data set beside copying the same bytes with numpy, one core, files in the page cache.

    python benchmarks/reading.py SHARDS [--seq-length 8192] [--samples 500]

"Copy" is the least that any reader must do: for every conversation of the same packs, ids, labels, mask and positions
are copied from the memory maps into the same four arrays, with every offset worked out beforehand. docs/packing.md
quotes the figures; benchmarks/startup.py makes shards.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.pack_plan import make_plan
from sft_shards.trainer.data.shards import Reader


def main() -> None:
    """Print microseconds a pack, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--seq-length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()
    size = options.seq_length
    with tempfile.TemporaryDirectory() as folder:
        split = ShardDirectory(options.shards).split("train")
        plan = make_plan(
            split,
            seq_length=size,
            overlong="truncate",
            batching="packed",
            every_token=False,
            seed=1,
            cache=Cache(Path(folder)),
        )
    reader = Reader(plan, seq_length=size, pad_id=0, every_token=False)
    numbers = range(min(options.samples, len(plan)))
    pieces = []
    for number in numbers:
        rows = plan.packs.items[plan.packs.bounds[number] : plan.packs.bounds[number + 1]].tolist()
        at, here = 0, []
        for row in rows:
            shard, inner = split.locate(row)
            start, count = int(shard.tokens.starts[inner]), min(int(shard.tokens.lengths[inner]) - 1, size)
            here.append((np.asarray(shard.tokens.items), np.asarray(shard.loss_mask.items), start, at, count))
            at += count
        pieces.append(here)
    ramp = np.arange(size, dtype=np.int32)

    def copy() -> None:
        for here in pieces:
            tokens, labels, positions = (np.empty(size, dtype=np.int32) for _ in range(3))
            loss_mask = np.empty(size, dtype=np.uint8)
            for ids, mask, start, at, count in here:
                end = at + count
                tokens[at:end] = ids[start : start + count]
                labels[at:end] = ids[start + 1 : start + count + 1]
                loss_mask[at:end] = mask[start + 1 : start + count + 1]
                positions[at:end] = ramp[:count]

    def read() -> None:
        for number in numbers:
            reader[number]

    seconds = {}
    for name, function in (("copy", copy), ("read", read)):
        function()
        seconds[name] = min(timed(function) for _ in range(5))
        each = seconds[name] / len(numbers)
        print(f"{name}: {each * 1e6:.1f} us a pack, {size / each / 1e6:.0f} million positions/s")
    conversations = sum(map(len, pieces)) / len(numbers)
    print(f"read / copy: {seconds['read'] / seconds['copy']:.2f}   ({conversations:.1f} conversations a pack)")


def timed(function: object) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    function()  # type: ignore[operator]
    return time.process_time() - began


if __name__ == "__main__":
    main()
