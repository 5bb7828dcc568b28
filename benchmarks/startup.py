"""Start-up: seconds from shards to the first batch, and memory of the data set, without Megatron's own imports.

    python benchmarks/startup.py [--conversations 170000] [--mean 590] [--shards 32] [--seq-length 8192] [--keep DIR]

Makes shards of random ids (log-normal lengths), plans them once, then measures in fresh processes: opening, the plan
(from the cache), the first order, the first sample; and resident memory that the process did not have before
(private memory apart: pages of the files are shared by the ranks of a node). docs/packing.md quotes the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from sft_shards.formats.shards import (
    MASK_DTYPE,
    Counts,
    FileInfo,
    IndexedWriter,
    Manifest,
    Notes,
    ShardInfo,
    SplitInfo,
    TemplateInfo,
    TokenizerInfo,
    token_dtype,
)
from sft_shards.formats.shards.files import sha256_file

MEASURE = """
import json, sys, time
import numpy
from pathlib import Path
def memory():
    rows = Path("/proc/self/smaps_rollup").read_text().split("\\n")
    kb = {row.split(":")[0]: int(row.split()[1]) for row in rows[1:] if row}
    return kb["Rss"] / 1024, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1024, kb["Anonymous"] / 1024
from fractions import Fraction
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data import cache, mixture, pack_plan, samples
before = memory()
began = time.perf_counter()
split = ShardDirectory(Path(sys.argv[1])).split("train")
seq_length, batching, count = int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
made = pack_plan.make_plan(split, seq_length=seq_length, overlong="truncate", batching=batching, every_token=False,
                           seed=1, cache=cache.Cache(Path(sys.argv[2])))
mixed = mixture.Mixture([mixture.Source(name="a", weight=Fraction(1), plan=made)], seed=1)
reader = samples.Reader(made, seq_length=seq_length, pad_id=0, every_token=False)
train = samples.TrainSamples(mixed, [reader], count=1 << 40)
train[0]
seconds = time.perf_counter() - began
for item in range(1, count):
    train[item]
after = memory()
print(json.dumps({"seconds": seconds, "packs": len(made), "rss": after[0] - before[0],
                  "anonymous": after[2] - before[2]}))
"""


def make(folder: Path, conversations: int, mean: float, shards: int, capacity: int, *, thirds: int = 2) -> int:
    """Shards of random ids, so many thirds of them trained; the number of tokens."""
    rng = np.random.default_rng(0)
    vocabulary = 50_000
    infos = []
    for number in range(shards):
        count = (number + 1) * conversations // shards - number * conversations // shards
        lengths = np.clip(rng.lognormal(np.log(mean) - 0.5, 1.0, count), 2, capacity).astype(np.int64)
        total = int(lengths.sum())
        mask = (rng.integers(0, 3, total, dtype=np.uint8) >= 3 - thirds).astype(np.uint8)
        ids = rng.integers(0, vocabulary, total, dtype=np.uint16)
        files = {}
        for kind, dtype, values, limit in (
            ("tokens", token_dtype(vocabulary), ids, vocabulary),
            ("loss_mask", MASK_DTYPE, mask, 2),
        ):
            path = folder / "train" / kind
            path.mkdir(parents=True, exist_ok=True)
            writer = IndexedWriter(path / f"{number:05d}", dtype, limit=limit)
            writer.append(values, lengths)
            writer.close()
            for suffix in (".bin", ".idx"):
                file = path / f"{number:05d}{suffix}"
                files[f"{kind}/{file.name}"] = FileInfo(bytes=file.stat().st_size, sha256=sha256_file(file))
        infos.append(
            ShardInfo(
                name=f"{number:05d}",
                sequences=count,
                tokens=total,
                trained_tokens=int(mask.sum()),
                longest=int(lengths.max()),
                files=files,
            )
        )
    split = SplitInfo.of(tuple(infos))
    Manifest(
        config={},
        sources=(),
        tokenizer=TokenizerInfo(
            name="random", vocab_size=vocabulary, vocab_sha256="", dtype="uint16", eos_id=0, pad_id=0, bos_id=None
        ),
        template=TemplateInfo(name="none", sha256=""),
        splits={"train": split},
        counts=Counts(read=split.sequences, written=split.sequences, rejected={}),
        notes=Notes(),
        versions={},
    ).write(folder)
    return split.tokens


def main() -> None:
    """Make, plan, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=170_000)
    parser.add_argument("--mean", type=float, default=590)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--seq-length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=200, help="read before memory is looked at")
    parser.add_argument("--keep", type=Path, help="make the shards here and leave them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "shards"
        if not (folder / "manifest.json").exists():
            tokens = make(folder, options.conversations, options.mean, options.shards, options.seq_length)
            print(f"made {options.conversations:,} conversations, {tokens:,} tokens in {options.shards} shards")
        for batching in ("packed", "padded"):
            words = [str(folder), str(Path(scratch) / "cache"), str(options.seq_length), batching, str(options.samples)]
            for name in ("planned now", "from the cache", "again"):
                done = subprocess.run(
                    [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout)
                print(
                    f"{batching}, {name}: first sample after {found['seconds']:.2f} s of {found['packs']:,}; resident "
                    f"+{found['rss']:.0f} MB, of it {found['anonymous']:.0f} MB private to the rank"
                )


if __name__ == "__main__":
    main()
