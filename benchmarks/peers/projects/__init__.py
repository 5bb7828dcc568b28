"""The peers by name. Each is imported in the process that runs it: most want an environment of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.cases import Case
from benchmarks.peers.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class Project:
    """One column of the tables."""

    module: str
    title: str
    function: str = "run"
    package: str | None = None
    """The installed package that carries the version; None: a checkout does."""

    def load(self, checkout: Path) -> Callable[[Case], Pairs]:
        """The function that gives the pairs of a case."""
        module = importlib.import_module(f"benchmarks.peers.projects.{self.module}")
        made: Callable[[Case], Pairs] = getattr(module, self.function)(checkout)
        return made


PROJECTS = {
    "hf": Project(module="hugging_face", package="transformers", title="Hugging Face, return_assistant_tokens_mask"),
    "trl": Project(module="trl", package="trl", title="TRL SFTTrainer, assistant_only_loss"),
    "axolotl": Project(module="axolotl", package="axolotl", title="axolotl, chat_template strategy"),
    "llama-factory": Project(module="llama_factory", title="LLaMA-Factory, SupervisedDatasetProcessor"),
    "open-instruct": Project(module="open_instruct", title="open-instruct, sft_tulu_tokenize"),
    "nemotron": Project(module="nemotron", title="NVIDIA Nemotron, data_prep chat SFT"),
    "megatron-bridge": Project(module="megatron_bridge", title="NVIDIA Megatron-Bridge, _chat_preprocess"),
    "megatron": Project(
        module="megatron_lm", package="megatron-core", title="Megatron-LM --sft, prompt format default"
    ),
    "primus": Project(module="primus", function="run_unpacked", title="AMD Primus, SFTDataset (not packed)"),
    "primus-packed": Project(module="primus", function="run_packed", title="AMD Primus, PackedSFTDataset"),
    "primus-chat": Project(module="primus", function="run_chat", title="AMD Primus, GPTSFTChatDataset"),
    "gpt-neox": Project(module="gpt_neox", title="gpt-neox, build_chat"),
}
