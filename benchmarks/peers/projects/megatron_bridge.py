"""Megatron-Bridge's `_chat_preprocess`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import Case
from benchmarks.peers.modules import bare, hugging_face
from benchmarks.peers.pairs import Pairs, masked


def run(checkout: Path) -> Callable[[Case], Pairs]:
    """Megatron-Bridge's `_chat_preprocess`."""
    names = ("", ".data", ".data.datasets", ".utils", ".training", ".training.utils")
    import megatron.core  # noqa: F401  (the namespace package, before parts of it are put in)

    bare(checkout / "src", *("megatron.bridge" + name for name in names))
    from megatron.bridge.data.datasets.utils import _chat_preprocess

    def one(case: Case) -> Pairs:
        out = _chat_preprocess({"messages": case["messages"]}, hugging_face(case))
        return masked(out["input_ids"], out["loss_mask"])

    return one
