"""Megatron-LM's SFTDataset (`--sft`) with `--sft-tokenizer-prompt-format default`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import LENGTH, Case, record_file
from benchmarks.peers.pairs import Pairs, shifted


def run(_checkout: Path) -> Callable[[Case], Pairs]:
    """Megatron-LM's SFTDataset (`--sft`) with `--sft-tokenizer-prompt-format default`."""
    import numpy as np
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
    from megatron.core.datasets.utils import Split
    from megatron.core.tokenizers import MegatronTokenizer
    from megatron.training.datasets.sft_dataset import SFTDataset, SFTLowLevelDataset

    def one(case: Case) -> Pairs:
        tokenizer = MegatronTokenizer.from_pretrained(
            case["folder"], metadata_path={"library": "sft"}, prompt_format="default"
        )
        off = dict.fromkeys(
            ("reset_position_ids", "reset_attention_mask", "eod_mask_loss", "create_attention_mask"), False
        )
        config = GPTDatasetConfig(
            random_seed=1, sequence_length=LENGTH, tokenizer=tokenizer, split="1", context_parallel_size=1, **off
        )
        low = SFTLowLevelDataset(record_file(case))
        row = SFTDataset(low, "", np.arange(1), 1, Split.train, config)[0]
        tokens, _ = tokenizer.tokenize_conversation(case["messages"], return_target=True, add_generation_prompt=False)
        return shifted(row["tokens"], row["labels"], row["loss_mask"], len(tokens))

    return one
