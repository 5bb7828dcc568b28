"""The stages that `--stage NAME` can choose: those built in, and those of other packages.

Names are known without importing torch; classes are imported by `load`. Another package adds a stage by an entry point
of the group `sft_shards.stages` that names a subclass of `sft_shards.trainer.stage.Stage`; in its setup.cfg:

    [options.entry_points]
    sft_shards.stages =
        dpo = my_package:DpoStage
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sft_shards.formats.errors import DataError, UsageError, nearest

GROUP = "sft_shards.stages"
BUILT_IN = {"sft": "sft_shards.trainer.stage:Stage", "pretrain": "sft_shards.trainer.stage:PretrainStage"}


def known() -> dict[str, EntryPoint]:
    """Return the stages by name; built-in ones cannot be replaced."""
    found = {each.name: each for each in entry_points(group=GROUP)}
    return {**found, **{name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}}


def check(name: str) -> None:
    """Raise UsageError if no stage has this name."""
    if name not in known():
        raise UsageError(f"--stage {name}: no such stage; {nearest(name, known())}")


def load(name: str) -> type[Any]:
    """Import and return the class of a stage.

    Raises:
        UsageError: no stage has this name.
        DataError: its package cannot be imported, or the entry point names no subclass of `Stage`.
    """
    check(name)
    entry = known()[name]
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise DataError(f"--stage {name}: {entry.value} cannot be loaded ({error}); install it again") from None
    base = importlib.import_module("sft_shards.trainer.stage").Stage
    if not (isinstance(found, type) and issubclass(found, base)):
        raise DataError(f"--stage {name}: {entry.value} is not a subclass of sft_shards.trainer.stage.Stage")
    return found
