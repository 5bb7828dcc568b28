"""Nemotron's `create_masked_messages` and `_tokenize_chunks_with_mask` (data_prep)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import Case
from benchmarks.peers.modules import bare, hugging_face
from benchmarks.peers.pairs import Pairs, masked


def run(checkout: Path) -> Callable[[Case], Pairs]:
    """Nemotron's `create_masked_messages` and `_tokenize_chunks_with_mask` (data_prep)."""
    names = ("", ".data_prep", ".data_prep.core", ".data_prep.utils", ".data_prep.packing")
    bare(checkout / "src", *("nemotron" + name for name in names))
    from nemotron.data_prep.core.chat_sft_shard_core import _tokenize_chunks_with_mask
    from nemotron.data_prep.core.chat_template import create_masked_messages, split_system_user_chunks

    def one(case: Case) -> Pairs:
        tokenizer = hugging_face(case)
        pairs: Pairs = []
        for chunks, _ in create_masked_messages(case["messages"], tokenizer):
            pairs += masked(*_tokenize_chunks_with_mask(tokenizer, split_system_user_chunks(chunks)))
        return pairs

    return one
