"""LLaMA-Factory's SupervisedDatasetProcessor with its own template of the model's family."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.cases import LENGTH, Case
from benchmarks.peers.modules import hugging_face
from benchmarks.peers.pairs import Pairs, labelled


def run(checkout: Path) -> Callable[[Case], Pairs]:
    """LLaMA-Factory's SupervisedDatasetProcessor with its own template of the model's family."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    sys.path.insert(0, str(checkout / "src"))
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    def one(case: Case) -> Pairs:
        tokenizer = hugging_face(case)
        arguments = DataArguments(template=case["llamafactory"], cutoff_len=LENGTH)
        template = get_template_and_fix_tokenizer(tokenizer, arguments)
        processor = SupervisedDatasetProcessor(template, tokenizer, None, arguments)
        system = "".join(message["content"] for message in case["messages"] if message["role"] == "system")
        turns = [message for message in case["messages"] if message["role"] != "system"]
        return labelled(*processor._encode_data_example(turns[:-1], turns[-1:], system or None, None, [], [], []))

    return one
