"""open-instruct's `sft_tulu_tokenize_and_truncate_v1`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import LENGTH, Case
from benchmarks.peers.modules import bare, hugging_face, stub
from benchmarks.peers.pairs import Pairs, labelled


def run(checkout: Path) -> Callable[[Case], Pairs]:
    """open-instruct's `sft_tulu_tokenize_and_truncate_v1`."""
    bare(checkout, "open_instruct")
    stub("open_instruct.utils", "hf_whoami", "max_num_processes")
    stub("open_instruct.launch_utils")
    from open_instruct.dataset_transformation import sft_tulu_tokenize_and_truncate_v1

    def one(case: Case) -> Pairs:
        row = sft_tulu_tokenize_and_truncate_v1({"messages": case["messages"]}, hugging_face(case), LENGTH)
        return labelled(row["input_ids"], row["labels"])

    return one
