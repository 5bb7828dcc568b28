"""TRL: building `SFTTrainer(assistant_only_loss=True)` maps its data set; the model has one tiny layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.throughput.contenders.contender import Contender, Sequences, Settings, from_lists


class Trainer(Contender):
    """What the trainer's training set holds once it is built."""

    def __init__(self, settings: Settings) -> None:
        from datasets import disable_progress_bars
        from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

        super().__init__(settings)
        disable_progress_bars()
        self.tokenizer = AutoTokenizer.from_pretrained(settings.marked)
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        self.model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(self.tokenizer), **sizes, **heads))
        self.made: dict[Path, Any] = {}

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        from datasets import load_dataset
        from trl import SFTConfig, SFTTrainer

        files, cache = str(source / "messages.jsonl"), str(target / "cache")
        options: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "max_length": None}
        self.made[target] = SFTTrainer(
            self.model,
            args=SFTConfig(output_dir=str(target / "out"), assistant_only_loss=True, **options),
            train_dataset=load_dataset("json", data_files=files, split="train", cache_dir=cache),
            processing_class=self.tokenizer,
        ).train_dataset

    def read(self, target: Path) -> Sequences:  # noqa: D102
        data = self.made[target]
        return from_lists(data["input_ids"], [[label != -100 for label in row] for row in data["labels"]])
