"""Hugging Face's `apply_chat_template(return_assistant_tokens_mask=True)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import Case
from benchmarks.peers.modules import hugging_face
from benchmarks.peers.pairs import Pairs, masked


def run(_checkout: Path) -> Callable[[Case], Pairs]:
    """Hugging Face's `apply_chat_template(return_assistant_tokens_mask=True)`."""

    def one(case: Case) -> Pairs:
        out = hugging_face(case).apply_chat_template(
            case["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return masked(out["input_ids"], out["assistant_masks"])

    return one
