"""axolotl's chat_template strategy with the tokenizer's own template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import LENGTH, Case
from benchmarks.peers.modules import hugging_face
from benchmarks.peers.pairs import Pairs, labelled


def run(_checkout: Path) -> Callable[[Case], Pairs]:
    """axolotl's chat_template strategy with the tokenizer's own template."""
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault

    def one(case: Case) -> Pairs:
        config = {"sequence_len": LENGTH, "train_on_inputs": False, "chat_template": "tokenizer_default"}
        column = {"type": "chat_template", "field_messages": "messages"}
        strategy = load(
            hugging_face(case), DictDefault({**config, "datasets": [{"path": "none"}]}), DictDefault(column)
        )
        row = strategy.tokenize_prompt({"messages": case["messages"]})
        return labelled(row["input_ids"], row["labels"])

    return one
