"""What lies on disk: Megatron indexed datasets for tokens and loss masks, and the manifest over them.

    sequences ──IndexedWriter──▶ tokens/00000.{bin,idx}  loss_mask/00000.{bin,idx}
    Manifest.write ──▶ manifest.json ──ShardDirectory──▶ Split ──▶ (tokens, loss_mask)

In five lines:

    from sft_shards.formats.shards import ShardDirectory
    directory = ShardDirectory("shards")
    train = directory.split("train")
    tokens, loss_mask = train[0]
    print(directory.manifest.splits["train"].trained_tokens, train.lengths().max())
"""

from sft_shards.formats.shards.directory import Shard, ShardDirectory, Split
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
    "token_dtype",
    "vocabulary_hash",
]
