"""gpt-neox's `build_chat` in tools/datasets/preprocess_data_with_chat_template.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import Case
from benchmarks.peers.modules import bare, hugging_face
from benchmarks.peers.pairs import Pairs, labelled


def run(checkout: Path) -> Callable[[Case], Pairs]:
    """gpt-neox's `build_chat` in tools/datasets/preprocess_data_with_chat_template.py."""
    bare(checkout, "megatron", "megatron.data")
    sys.modules["megatron"].print_rank_0 = print  # type: ignore[attr-defined]
    sys.path.insert(0, str(checkout / "tools" / "datasets"))
    from preprocess_data_with_chat_template import build_chat

    return lambda case: labelled(*build_chat(case["messages"], "assistant", True, hugging_face(case)))
