"""Megatron's flags as a small valid call would have them parsed."""

import argparse
from typing import Any


def args(**given: Any) -> argparse.Namespace:
    known = {
        "num_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "seq_length": 16, "train_iters": 3,
        "train_samples": None, "lr": 0.1, "context_parallel_size": 1, "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1, "micro_batch_size": 1, "global_batch_size": None,
        "make_vocab_size_divisible_by": 128, "rampup_batch_size": None, "vocab_size": None, "padded_vocab_size": None, "tokenizer_type": None,
        "tokenizer_model": None, "calculate_per_token_loss": True,
    }  # fmt: skip
    return argparse.Namespace(**{**known, **given})
