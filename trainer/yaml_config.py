"""The YAML file of a run: a flat mapping of `sft-train`'s own options and Megatron's flags.

    shards: [demo-out/shards]
    num-layers: 2            # dashes or underscores
    swiglu: true             # a switch: true sets it, false leaves it
    log-interval: 5

Only the types of values are checked here. Names of Megatron's flags are checked by `sft_shards.trainer.mcore.flags`
with Megatron's parser, because the command itself starts without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.data.pack_plan import BATCHING, OVERLONG
from sft_shards.trainer.isolation.choose import ISOLATIONS
from sft_shards.trainer.job import DEVICES, EVALUATE

CHOICES = {"device": DEVICES, "overlong": OVERLONG, "batching": BATCHING, "isolation": ISOLATIONS, "evaluate": EVALUATE}
OWN = (
    *("shards", "device", "nproc", "stage", "batching", "isolation", "overlong", "epochs", "cache-dir", "skip-scan"),
    *("loss-chunk", "log-batches", "no-balance", "evaluate"),
    *("model", "revision", "hf-config", "random-weights", "lora-rank", "lora-alpha", "lora-dropout", "lora-targets"),
)
"""Options of `sft-train` that may stand in the file too; an option on the command line wins."""


SWITCHES = ("random-weights", "skip-scan", "no-balance")
NUMBERS: dict[str, tuple[type, ...]] = {
    "lora-rank": (int,),
    "loss-chunk": (int,),
    "lora-alpha": (int, float),
    "lora-dropout": (int, float),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The contents of a YAML file."""

    own: dict[str, Any] = field(default_factory=dict)
    """Options of `sft-train` by the names of `OWN`; `shards` is always a list."""
    megatron: dict[str, Any] = field(default_factory=dict)
    """Megatron's flags: name with dashes to bool, int, float, str, or a list of these."""


def read(path: str) -> Config:
    """Read and check the file.

    Raises:
        UsageError: the file is missing, is not YAML or not a flat mapping, has a name twice or a value of a wrong type.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the configuration ({_reason(error)})") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise UsageError(f"{where}: not YAML ({getattr(error, 'problem', None) or 'broken'})") from None
    if raw is None:
        return Config()
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a mapping 'flag: value' is expected, this is a {type(raw).__name__}")
    own: dict[str, Any] = {}
    megatron: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).strip().lstrip("-").replace("_", "-")
        if name in own or name in megatron:
            raise UsageError(f"{path}: {name!r} is given twice")
        if name == "trust-remote-code":
            raise UsageError(
                f"{path}: {name!r} lets a tokenizer's own code run, and this file may be somebody else's; leave it "
                "out, and give --trust-remote-code after -- in the call"
            )
        if name in OWN:
            own[name] = _check_own(path, name, value)
            if name == "hf-config" or (name == "model" and value.startswith(".")):
                own[name] = str(Path(path).parent / value)  # goes with the file, wherever the command is called
        else:
            megatron[name] = _check_flag(path, name, value)
    return Config(own=own, megatron=megatron)


def _check_own(path: str, name: str, value: Any) -> Any:
    if name == "shards":
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, str) for entry in entries):
            raise UsageError(f"{path}: 'shards' is a directory or a list of directories, not {value!r}")
        return entries
    if name == "nproc":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{path}: 'nproc' is a number of processes, not {value!r}")
        return value
    if name in SWITCHES:
        if not isinstance(value, bool):
            raise UsageError(f"{path}: {name!r} is true or false, not {value!r}")
        return value
    if name in NUMBERS:
        if not isinstance(value, NUMBERS[name]) or isinstance(value, bool):
            raise UsageError(f"{path}: {name!r} is a number, not {value!r}")
        return value
    if name == "epochs":
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{path}: 'epochs' is a number, not {value!r}")
        return str(value)
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise UsageError(f"{path}: {name!r} is one of {', '.join(CHOICES[name])}, not {value!r}")
    elif not isinstance(value, str):
        raise UsageError(f"{path}: {name!r} is a text, not {value!r}")
    return value


def _check_flag(path: str, name: str, value: Any) -> Any:
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, (bool, int, float, str)):
            kind = "nothing" if entry is None else f"a {type(entry).__name__}"
            raise UsageError(f"{path}: {name!r} holds {kind}; a flag takes true, false, a number, a text or a list")
    return value


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8"
