"""The contenders by name. Each is imported in the process that runs it: some want an environment of their own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from benchmarks.throughput.contenders.contender import Contender, Settings


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table."""

    module: str
    name: str
    title: str
    slow: bool = True
    """Slow ones get the first quarter of the corpus."""
    backend: str | None = None

    def load(self, settings: Settings) -> Contender:
        """The contender, ready to work."""
        module = importlib.import_module(f"benchmarks.throughput.contenders.{self.module}")
        made = getattr(module, self.name)(settings)
        assert isinstance(made, Contender)
        return made


REFERENCE = "hf-loop"
"""What ids and masks are compared with, and the speed that is 1."""
IDS_ALONE = "hf-loop-ids"
FLOOR = "backend-fastokens"
CONTENDERS = {
    REFERENCE: Entry(
        module="hugging_face", name="Loop", title="json + apply_chat_template with its mask, a record at a time"
    ),
    IDS_ALONE: Entry(module="hugging_face", name="IdsAlone", title="json + apply_chat_template without a mask"),
    "datasets-map": Entry(module="hugging_face", name="DatasetsMap", title="datasets.map with the same"),
    "trl": Entry(module="trl", name="Trainer", title="TRL SFTTrainer, assistant_only_loss"),
    "gpt-neox": Entry(
        module="gpt_neox", name="ChatTemplateScript", title="gpt-neox preprocess_data_with_chat_template.py"
    ),
    "megatron": Entry(
        module="megatron_lm",
        name="PreprocessData",
        title="Megatron-LM tools/preprocess_data.py, rendered text, no mask",
    ),
    "datatrove": Entry(
        module="datatrove", name="MegatronWriter", title="datatrove Megatron writer, rendered text, no mask"
    ),
    "ours": Entry(module="sft_shards", name="RunCommand", title="sft-preprocess run", slow=False),
    "ours-task": Entry(
        module="sft_shards", name="TaskCommand", title="sft-preprocess task, without plan and finalize", slow=False
    ),
    "ours-hf": Entry(
        module="sft_shards",
        name="RunCommand",
        title="sft-preprocess run --tokenizer-engine hf",
        slow=False,
        backend="hf",
    ),
    "ours-fastokens": Entry(
        module="sft_shards",
        name="RunCommand",
        title="sft-preprocess run --tokenizer-engine fastokens",
        slow=False,
        backend="fastokens",
    ),
    "ours-task-fastokens": Entry(
        module="sft_shards",
        name="TaskCommand",
        title="sft-preprocess task --tokenizer-engine fastokens",
        slow=False,
        backend="fastokens",
    ),
    "backend-hf": Entry(
        module="bare_backends",
        name="HuggingFaceTokenizers",
        title="the bare backend of Hugging Face tokenizers, texts in memory",
    ),
    FLOOR: Entry(
        module="bare_backends", name="Fastokens", title="the bare backend of fastokens, texts in memory", slow=False
    ),
}
