"""Megatron-LM: tools/preprocess_data.py of a checkout, as it is, on rendered text, with one worker."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.throughput.contenders.contender import (
    Contender,
    Sequences,
    Settings,
    need_checkout,
    read_megatron,
    run_script,
)


class PreprocessData(Contender):
    """The script, imported by its name, because its workers are sent what it defines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        checkout = need_checkout(settings, "tools/preprocess_data.py")
        sys.path[:0] = [str(checkout / "tools"), str(checkout)]
        self.script = importlib.import_module("preprocess_data")

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        call = ["--input", str(source / "text.jsonl"), "--output-prefix", str(target / "out"), "--workers", "1"]
        call += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", self.settings.tokenizer]
        run_script(self.script.main, call)

    def read(self, target: Path) -> Sequences:  # noqa: D102
        lengths, ids = read_megatron(target / "out_text_document")
        return Sequences(lengths=lengths, ids=ids, mask=None)
