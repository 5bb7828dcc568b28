"""One call of `sft-train`, as it travels from the command to the worker processes.

text = Job(shards=("shards",), device="cpu", flags=("--lr", "1e-3")).dumps()
Job.loads(text).given("lr")                        # "1e-3"
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sft_shards.formats.errors import UsageError

LAUNCHER = "SFT_SHARDS_LAUNCHER"
"""Environment of workers: the process id of the command that started them."""
DEVICES = ("gpu", "cpu")
EVALUATE = ("train", "valid", "test")
MOST_BATCHES = 24


@dataclass(frozen=True, kw_only=True)
class Job:
    """Options of the command. Megatron's own flags stay text here, because only workers import Megatron.

    Raises:
        UsageError: a value is none that the option can have.
    """

    shards: tuple[str, ...]
    """`DIR` or `DIR:WEIGHT`, in the order given."""
    stage: str = "sft"
    """Name of a stage, see `sft_shards.trainer.stage_registry`."""
    batching: str = "packed"
    """`packed` or `padded`, see `sft_shards.trainer.data.pack_plan.BATCHING`."""
    isolation: str = "auto"
    """One of `sft_shards.trainer.isolation.choose.ISOLATIONS`."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why kinds of attention cannot be used on this machine, by kind (see `sft_shards.trainer.isolation.trial`)."""
    attention: str = ""
    """--attention-backend for Transformer Engine if the user's flags do not choose one; "": its default."""
    epochs: str | None = None
    """Epochs of the mixture, see `parse_epochs`; None: Megatron's --train-iters or --train-samples say how long."""
    cache_dir: str | None = None
    """Folder of cached pack plans; None: `sft_shards.formats.cache_folder.cache_folder()`."""
    loss_chunk: int = 4096
    """Trained positions whose logits are held at a time, see `sft_shards.trainer.mcore.trained_logits`."""
    no_balance: bool = False
    """Leave the samples of a global batch in the order of the mixture, see `sft_shards.trainer.data.balance`."""
    evaluate: str | None = None
    """One of `EVALUATE`: the split to evaluate in place of training; None: train."""
    log_batches: int = 0
    """Steps whose batches are written as a page before training begins, see `sft_shards.trainer.data.first_batches`."""
    skip_scan: bool = False
    """Leave out the scan of all ids and mask values, see `sft_shards.trainer.data.scan`."""
    device: str = "gpu"
    """One of `DEVICES`."""
    overlong: str = "truncate"
    """`truncate` or `drop`: what happens to a conversation of more than `--seq-length` + 1 tokens."""
    config: dict[str, Any] = field(default_factory=dict)
    """Megatron's flags from the YAML file, by name without leading dashes: bool, int, float, str or a list of these."""
    config_path: str = ""
    """The YAML file, for error messages; "": there is none."""
    hf_config: str | None = None
    """A model's folder or `config.json` that gives its shape; None: Megatron's flags do."""
    model: str | None = None
    """A Hugging Face model's folder: its shape, and its weights where no checkpoint is resumed; None: none."""
    random_weights: bool = False
    """Untrained weights are meant, where no checkpoint is resumed."""
    lora_rank: int | None = None
    """Rank of LoRA's adapters; None: all weights are trained."""
    lora_alpha: float | None = None
    """Their strength; None: twice the rank."""
    lora_dropout: float | None = None
    """Dropout on their input; None: none."""
    lora_targets: str | None = None
    """Linear layers with an adapter, such as `q,v`; None: all that can have one."""
    flags: tuple[str, ...] = ()
    """Megatron's flags from after `--`; they win over `config`."""

    def __post_init__(self) -> None:
        if not 0 <= self.log_batches <= MOST_BATCHES:
            raise UsageError(f"--log-batches {self.log_batches}: from 1 to {MOST_BATCHES}, which one page can hold")
        if self.loss_chunk < 1:
            raise UsageError(f"--loss-chunk {self.loss_chunk}: a chunk has at least 1 position")

    def given(self, name: str) -> Any:
        """Look up one of Megatron's flags without Megatron's parser.

        Returns:
            Its text after `--` (True for a switch), else its value in the YAML file, else None.
        """
        for at in reversed(range(len(self.flags))):
            option, equals, value = self.flags[at].partition("=")
            if option == f"--{name}":
                following = self.flags[at + 1 : at + 2]
                alone = not following or following[0].startswith("--")
                return value if equals else True if alone else following[0]
        return self.config.get(name, self.config.get(name.replace("-", "_")))

    def dumps(self) -> str:
        """Return the job as one line of JSON, the only argument of `python -m sft_shards.trainer.worker`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> Job:
        """Return the job that `dumps` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "shards": tuple(raw["shards"]), "flags": tuple(raw["flags"])})


def parse_epochs(text: str) -> Fraction:
    """Read the value of --epochs, such as `3`, `0.5` or `1/3`.

    Raises:
        UsageError: it is not a number above 0.
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise UsageError(f"--epochs {text}: a number above 0 is expected, such as 3 or 0.5")
    return value
