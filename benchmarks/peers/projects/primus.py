"""AMD Primus: SFTDataset and PackedSFTDataset with the `messages` formatter, and GPTSFTChatDataset."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import LENGTH, Case, record_file
from benchmarks.peers.modules import bare, hugging_face
from benchmarks.peers.pairs import Pairs, shifted


def run_unpacked(checkout: Path) -> Callable[[Case], Pairs]:
    """Primus's SFTDataset with the `messages` formatter, the path without packing."""
    return run_dataset(checkout, packed=False)


def run_packed(checkout: Path) -> Callable[[Case], Pairs]:
    """Primus's PackedSFTDataset with the `messages` formatter."""
    return run_dataset(checkout, packed=True)


def run_dataset(checkout: Path, *, packed: bool) -> Callable[[Case], Pairs]:
    """Either of the two that write ChatML themselves."""
    os.environ["PRIMUS_DISABLE_PACK_CACHE"] = "1"
    sys.path.insert(0, str(checkout))
    from megatron.core.tokenizers import MegatronTokenizer
    from primus.backends.megatron.sft.dataset import SFTDataset
    from primus.backends.megatron.sft.packing import PackedSFTDataset

    def one(case: Case) -> Pairs:
        tokenizer = MegatronTokenizer.from_pretrained(case["folder"], metadata_path={"library": "huggingface"})
        kind = PackedSFTDataset if packed else SFTDataset
        row = kind(record_file(case), tokenizer, LENGTH, formatter="messages")[0]
        ids, pad = row["input_ids"].tolist(), row["input_ids"][-1].item()
        length = LENGTH - next(at for at, token in enumerate(reversed(ids)) if token != pad)
        return shifted(ids, row["labels"], row["loss_mask"], length)

    return one


def run_chat(checkout: Path) -> Callable[[Case], Pairs]:
    """Primus's GPTSFTChatDataset, which uses the tokenizer's own template."""
    bare(checkout, "primus", "primus.backends", "primus.backends.megatron", "primus.backends.megatron.sft")
    from primus.backends.megatron.sft.gpt_sft_chat_dataset import GPTSFTChatDataset

    def one(case: Case) -> Pairs:
        own = hugging_face(case)
        tokenizer = types.SimpleNamespace(_tokenizer=own, eod=own.eos_token_id)
        row = GPTSFTChatDataset(record_file(case), tokenizer, LENGTH)[0]
        return shifted(row["tokens"], row["labels"], row["loss_mask"], LENGTH)

    return one
