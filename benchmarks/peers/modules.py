"""Imports of parts of a checkout, and the tokenizer that a peer works with."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import Case


def bare(root: Path, *names: str) -> None:
    """Make packages of a checkout importable without running their `__init__`."""
    for name in names:
        module = types.ModuleType(name)
        module.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = module
        if "." in name:
            parent, _, own = name.rpartition(".")
            setattr(sys.modules[parent], own, module)


def stub(name: str, *attributes: str) -> None:
    """A module with nothing in it, in the place of one that masks do not need."""
    module = types.ModuleType(name)
    for attribute in attributes:
        setattr(module, attribute, None)
    sys.modules[name] = module
    parent, _, own = name.rpartition(".")
    setattr(sys.modules[parent], own, module)


def hugging_face(case: Case) -> Any:
    """The tokenizer of a case, as `AutoTokenizer` loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(case["folder"])
