"""Does a checkpoint go on with the run that is asked for? Adapters and whole models are never mixed up.

Megatron's own words where they are would be `Cannot merge two lists with different lengths` or a tensor's shape, after
minutes of loading. The index of the checkpoint tells adapters, rank and targets; alpha, which no tensor shows, is in
`SAVE/hf/sft.json`, as is everything for checkpoints of the format `torch`, which have no index.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.model import sidecar
from sft_shards.trainer.model.checkpoint import Checkpoint
from sft_shards.trainer.model.lora import Lora, modules

KEY = re.compile(r"model\.layers\.\d+\.(?P<name>\S+)\.lora_(?P<part>[AB])\.weight")
"""Names of the tensors of adapters in a checkpoint."""


def holds_adapters(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is of a run with LoRA."""
    return any(KEY.fullmatch(name) for name in checkpoint.tensors)


def check(load: str, lora: Lora | None, *, step: int | None, option: str = "--load") -> None:
    """Compare a checkpoint with what is to be trained.

    Args:
        load: a folder with a checkpoint.
        lora: the adapters to train; None: all weights.
        step: which iteration; None: the last.
        option: how the user named the folder, for messages.

    Raises:
        UsageError: it holds something else.
        DataError: its index, or the file beside it, is damaged.
    """
    held = adapters(Path(load), step)
    if lora is None:
        if held:
            raise UsageError(
                f"{option} {load}: holds adapters, no whole model; --load it with --lora-rank {held.get('rank', 'R')} "
                "and --model to go on with them, or export them with --merge and give the result to --model"
            )
        return
    if not held:
        raise UsageError(
            f"--load {load}: holds a whole model, --lora-rank trains adapters; leave --lora-rank out to go on with it, "
            "or export it, give the result to --model, and --load another folder"
        )
    for name, ours in described(lora).items():
        if held.get(name, ours) != ours:
            raise UsageError(
                f"--load {load}: its adapters have {name} {held[name]}, this call says {ours}; give the same "
                f"--lora-{name}, or --load another folder"
            )


def check_save(save: str, lora: Lora | None) -> None:
    """Compare the checkpoints in a folder that this run will write to with what it trains.

    `SAVE/hf` describes all checkpoints of its folder, so they must be of one kind: steps of an earlier run would
    otherwise be exported with the rank and alpha of this one.

    Args:
        save: a folder with checkpoints that this run does not load.
        lora: the adapters to train; None: all weights.

    Raises:
        UsageError: its checkpoints are of another kind.
        DataError: their index, or the file beside them, is damaged.
    """
    held, ours = adapters(Path(save), None), described(lora) if lora is not None else {}
    if bool(held) != bool(ours) or any(held.get(name, value) != value for name, value in ours.items()):
        raise UsageError(
            f"--save {save}: holds checkpoints of {_words(held)}, and this run trains {_words(ours)}; "
            "name another folder"
        )


def _words(adapters: dict[str, str]) -> str:
    return "adapters (" + ", ".join(map(" ".join, adapters.items())) + ")" if adapters else "a whole model"


def described(lora: Lora) -> dict[str, str]:
    """What must be the same for a run to go on: rank, alpha and targets, in words."""
    return {"rank": str(lora.rank), "alpha": f"{lora.alpha:g}", "targets": ",".join(lora.targets)}


def adapters(load: Path, step: int | None) -> dict[str, str]:
    """What is known of the adapters in a checkpoint, as `described`; empty where it holds a whole model."""
    said: dict[str, str] = {}
    architecture = None
    with contextlib.suppress(UsageError):  # another tool wrote it, and no sidecar
        beside = sidecar.read(load / sidecar.FOLDER)
        architecture = beside.architecture
        said = described(beside.adapter) if beside.adapter else {}
    try:
        checkpoint = Checkpoint.open(load, step=step)
    except UsageError:  # of another format, which has no index
        return said
    found = {name: match for name in checkpoint.tensors if (match := KEY.fullmatch(name))}
    if not found:
        return {}
    rank = next(checkpoint.tensors[name].shape[0] for name, match in found.items() if match["part"] == "A")
    held = {**said, "rank": str(rank)}
    if architecture is not None:
        names = {match["name"] for match in found.values()}
        held["targets"] = ",".join(target for target, name in modules(architecture).items() if name in names)
    return held
