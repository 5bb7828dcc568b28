"""gpt-neox: tools/datasets/preprocess_data_with_chat_template.py of a checkout, as it is, with one worker."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np

from benchmarks.throughput.contenders.contender import (
    Contender,
    Sequences,
    Settings,
    need_checkout,
    read_megatron,
    run_script,
)


class ChatTemplateScript(Contender):
    """The script, with the packages that it imports but without their `__init__`, which wants DeepSpeed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        checkout = need_checkout(settings, "tools/datasets/preprocess_data_with_chat_template.py")
        for name in ("megatron", "megatron.data"):
            module = types.ModuleType(name)
            module.__path__ = [str(checkout / name.replace(".", "/"))]
            sys.modules[name] = module
        sys.modules["megatron"].print_rank_0 = print  # type: ignore[attr-defined]
        sys.path.insert(0, str(checkout / "tools/datasets"))
        self.script = importlib.import_module("preprocess_data_with_chat_template")

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        call = ["--input", str(source / "messages.jsonl"), "--output-prefix", str(target / "out")]
        call += ["--jsonl-keys", "messages", "--tokenizer-path", self.settings.tokenizer, "--workers", "1"]
        run_script(self.script.main, call)

    def read(self, target: Path) -> Sequences:  # noqa: D102
        lengths, ids = read_megatron(target / "out_messages_document")
        labels = read_megatron(target / "out_messages_label_document")[1]
        return Sequences(lengths=lengths, ids=ids, mask=(labels != -100).astype(np.uint8))
