"""Call `sft-train` several times, each in a fork of a process that has imported everything: seconds instead of tens.

    forked_calls.py CALLS.json      [[{"variables": {…}, "words": […]}], …]

The last line of output is a JSON list of [exit status, standard output, standard error].
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from sft_shards.trainer import cli
from sft_shards.trainer.mcore import compat, cpu_device


def call(words: list[str], variables: dict[str, str]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        pid = os.fork()
        if not pid:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT), number)
            code = 70
            try:
                os.environ.update(variables)
                code = cli.status(words)
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return [code, *(Path(folder, name).read_text() for name in ("out", "err"))]


def main(path: str) -> None:
    with compat.quiet():
        cpu_device.install()
        importlib.import_module("megatron.training.arguments")
        importlib.import_module("megatron.core.models.gpt.gpt_layer_specs")
    import torch

    cpu_device.install = lambda: None
    torch.cuda.is_available = lambda: False  # the stand-in says that there is one
    print(json.dumps([call(each["words"], each["variables"]) for each in json.loads(Path(path).read_text())]))


if __name__ == "__main__":
    main(sys.argv[1])
