"""What lies on disk: Megatron indexed datasets of tokens and loss masks, the manifest over them, and how they pack.

    sequences ──IndexedWriter──▶ tokens/00000.{bin,idx}, loss_mask/00000.{bin,idx}
    Manifest.write ──▶ manifest.json ──ShardDirectory──▶ Split ──▶ (tokens, loss_mask)
    Split ──selection──▶ rows that are trained on ──packing──▶ Packs

For example:

    from tempfile import TemporaryDirectory

    import numpy as np

    from sft_shards.formats.shards import IndexedReader, IndexedWriter

    with TemporaryDirectory() as folder:
        writer = IndexedWriter(f"{folder}/tokens", np.dtype(np.uint16), limit=100)
        writer.append(np.array([5, 6, 7], dtype=np.int32), np.array([2, 1]))
        writer.close()
        print([sequence.tolist() for sequence in IndexedReader(f"{folder}/tokens")])

A finished directory is read with `ShardDirectory("shards").split("train")[0]`.
"""

from sft_shards.formats.shards.directory import Shard, ShardDirectory, Split, WeightedPart
from sft_shards.formats.shards.indexed import MASK_DTYPE, IndexedReader, IndexedWriter, token_dtype
from sft_shards.formats.shards.manifest import (
    SPLITS,
    Counts,
    FileInfo,
    Manifest,
    Notes,
    PartInfo,
    ShardInfo,
    SourceInfo,
    SplitInfo,
    TemplateInfo,
    TokenizerInfo,
    vocabulary_hash,
)

__all__ = [
    "MASK_DTYPE",
    "SPLITS",
    "Counts",
    "FileInfo",
    "IndexedReader",
    "IndexedWriter",
    "Manifest",
    "Notes",
    "PartInfo",
    "Shard",
    "ShardDirectory",
    "ShardInfo",
    "SourceInfo",
    "Split",
    "SplitInfo",
    "TemplateInfo",
    "TokenizerInfo",
    "WeightedPart",
    "token_dtype",
    "vocabulary_hash",
]
