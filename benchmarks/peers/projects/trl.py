"""TRL's SFTTrainer with `assistant_only_loss`: what its training set holds once it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.modules import hugging_face
from benchmarks.peers.pairs import Pairs, labelled


def run(_checkout: Path) -> Callable[[Case], Pairs]:
    """TRL's SFTTrainer with `assistant_only_loss`: what its training set holds once it is built."""
    from datasets import Dataset, disable_progress_bars
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()

    def one(case: Case) -> Pairs:
        tokenizer = hugging_face(case)
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        config = Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads)
        options: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "max_length": None}
        trainer = SFTTrainer(
            Qwen2ForCausalLM(config),
            args=SFTConfig(output_dir=case["folder"] + "/trl", assistant_only_loss=True, **options),
            train_dataset=Dataset.from_list([{"messages": case["messages"]}]),
            processing_class=tokenizer,
        )
        row = trainer.train_dataset[0]
        return labelled(row["input_ids"], row["labels"])

    return one
