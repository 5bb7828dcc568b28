"""The arguments that Megatron saved in a checkpoint, read without running anything that stands in it.

Megatron keeps them in a pickle (`common.pt`, or each rank's `model_optim_rng.pt`), and a pickle names functions that
unpickling calls: a checkpoint from a stranger could run any code. Here only `argparse.Namespace` and plain containers
are made; every other class or function that the pickle names becomes an `Opaque`, which does nothing, and tensors are
not read at all. What is lost are values of other classes, such as dtypes; the flags that say a model's shape are
numbers, texts, truths and lists.
"""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.model.checkpoint import Checkpoint, step_folder

PLAIN = {
    ("argparse", "Namespace"): argparse.Namespace,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "tuple"): tuple,
}
"""The classes that are made, by module and name."""
LIMIT = 1 << 28
"""Most bytes of a pickle. Arguments and the optimizer's numbers take a few hundred kilobytes."""
COMMON = "common_state"
"""Where Megatron keeps them among a checkpoint's objects if there is no such file."""
FILES = ("common.pt", "mp_rank_00*/model_optim_rng.pt")
"""Where arguments stand in a step's folder, with --ckpt-format torch_dist and torch."""


class Opaque:
    """Stands for whatever else a pickle names: it can be called, filled and changed, and does nothing."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Opaque:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def _nothing(self, *_arguments: Any, **_options: Any) -> Opaque:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = update = _nothing


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name if it is one of `PLAIN`, else a class of `Opaque`."""
        return PLAIN.get((module, name), Opaque)

    def persistent_load(self, pid: Any) -> Any:
        """Stand for a tensor's numbers, which lie elsewhere in the file."""
        return Opaque()


def read(path: Path, step: int | None) -> argparse.Namespace:
    """Return the arguments of a checkpoint.

    Args:
        path: what --load named.
        step: which iteration; None: the last.

    Raises:
        UsageError: no checkpoint there, or one that holds no arguments.
        DataError: it is damaged.
    """
    folder = step_folder(path, step)
    found = [file for pattern in FILES for file in sorted(folder.glob(pattern))]
    if found:
        with found[0].open("rb") as file:
            state = _state(file, found[0])
    else:
        state = _state(io.BytesIO(_common_state(folder)), folder)
    if isinstance(state, list) and len(state) == 1:  # as one rank's share of an object
        (state,) = state
    arguments = state.get("args") if isinstance(state, dict) else None
    if not isinstance(arguments, argparse.Namespace):
        raise UsageError(f"{path}: this checkpoint holds no arguments; give --hf-config instead")
    return arguments


def _common_state(folder: Path) -> bytes:
    """Return what Megatron from 0.18 on saves among the tensors of a torch_dist checkpoint, in place of common.pt."""
    checkpoint = Checkpoint.open(folder)
    for name, size in checkpoint.objects.items():
        if name.partition("/")[0] == COMMON and size <= LIMIT:
            return checkpoint.read_object(name)
    raise UsageError(f"{folder}: this checkpoint holds no arguments; give --hf-config instead")


def _state(file: IO[bytes], where: Path) -> Any:
    """Unpickle what `torch.save` wrote, a zip archive with a member `data.pkl`."""
    try:
        with zipfile.ZipFile(file) as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if member.file_size > LIMIT:
                raise DataError(f"{where}: a pickle of {member.file_size:,} bytes; give --hf-config instead")
            with archive.open(member) as stream:
                return _Unpickler(stream).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DataError(f"{where}: not what torch saves ({reason}); give --hf-config instead") from None
