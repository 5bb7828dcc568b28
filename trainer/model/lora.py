"""What `--lora-rank` and its companions ask for: which linear layers get an adapter, of which rank and strength.

An adapter adds `alpha / rank * B(A(dropout(x)))` to the output of a frozen linear layer, with A `[rank, inputs]` and B
`[outputs, rank]`: LoRA as the library PEFT parametrises it, one pair for each of q, k, v, o, gate, up and down, also
where Megatron keeps several of them in one matrix. So what is trained here is what PEFT would train, and is exported
without arithmetic. Nothing here imports torch; the modules are in `sft_shards.trainer.model.adapters`.

    Lora(rank=16, alpha=32.0, dropout=0.0, targets=("q", "k", "v", "o"))
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.job import Job

ATTENTION = ("q", "k", "v", "o")
MLP = ("gate", "up", "down")
TARGETS = (*ATTENTION, *MLP)
"""Names that `--lora-targets` takes; each is one linear layer of a Hugging Face model's layer, `NAME_proj` there."""
UNSUPPORTED = {
    "use_transformer_engine_op_fuser": "fuses the MLP into one module, whose linear layers are never called",
    "defer_embedding_wgrad_compute": "puts off a gradient of the output layer, which is frozen",
    "freeze_lm": "freezes what LoRA trains",
}
"""Megatron's flags that do not go with adapters, by destination, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapters for every layer of a model."""

    rank: int
    """Rows of A and columns of B."""
    alpha: float
    """Strength; the adapter's output is multiplied by alpha / rank."""
    dropout: float
    """Probability with which an entry of an adapter's input is zeroed in training; the others are scaled up."""
    targets: tuple[str, ...]
    """A subset of `TARGETS`, in that order."""

    @property
    def scaling(self) -> float:
        """What B's output is multiplied by."""
        return self.alpha / self.rank


def parse(job: Job, *, experts: bool) -> Lora | None:
    """The adapters that a job asks for; None where it trains all weights.

    Args:
        experts: the model is a mixture of experts, of which only attention gets adapters.

    Raises:
        UsageError: an option without --lora-rank, a value out of range, an unknown target, or one in the experts.
    """
    companions = {"alpha": job.lora_alpha, "dropout": job.lora_dropout, "targets": job.lora_targets}
    if job.lora_rank is None:
        if given := [name for name, value in companions.items() if value is not None]:
            raise UsageError(f"--lora-{given[0]} needs --lora-rank; give it, or leave --lora-{given[0]} out")
        return None
    alpha = 2.0 * job.lora_rank if job.lora_alpha is None else job.lora_alpha
    dropout = job.lora_dropout or 0.0
    for name, value, good, wanted in (
        ("rank", job.lora_rank, job.lora_rank >= 1, "1 or more"),
        ("alpha", alpha, alpha > 0, "above 0"),
        ("dropout", dropout, 0 <= dropout < 1, "from 0 to below 1"),
    ):
        if not good:
            raise UsageError(f"--lora-{name} {value}: a number {wanted} is expected")
    return Lora(rank=job.lora_rank, alpha=alpha, dropout=dropout, targets=_targets(job.lora_targets, experts=experts))


def _targets(text: str | None, *, experts: bool) -> tuple[str, ...]:
    """The linear layers named in `q,k,v`; without a text all that can have an adapter."""
    if text is None:
        return ATTENTION if experts else TARGETS
    asked = [name.strip() for name in text.split(",")]
    if unknown := [name for name in asked if name not in TARGETS]:
        raise UsageError(f"--lora-targets {text}: {unknown[0]!r} is none of {','.join(TARGETS)}")
    if experts and (inside := [name for name in asked if name in MLP]):
        raise UsageError(
            f"--lora-targets {text}: {inside[0]!r} is in the experts of this model, where PEFT would load another "
            f"adapter than the one trained; use --lora-targets {','.join(ATTENTION)}"
        )
    return tuple(name for name in TARGETS if name in asked)


def check(args: Namespace, *, model: str | None) -> None:
    """Check that this layout and these flags can train adapters.

    Args:
        args: Megatron's flags as parsed; the model's shape is in them.
        model: what `--model` names.

    Raises:
        UsageError: no, with the remedy.
    """
    if model is None:
        raise UsageError("--lora-rank needs --model: adapters are trained beside the weights of a model")
    tensor, groups = args.tensor_model_parallel_size, query_groups(args)
    if groups % tensor:
        raise UsageError(
            f"--lora-rank: TP {tensor} would cut through the model's {groups} key and value heads; use a "
            f"--tensor-model-parallel-size that divides {groups}"
        )
    for name, reason in UNSUPPORTED.items():
        if getattr(args, name, False):
            raise UsageError(f"--lora-rank does not go with --{name.replace('_', '-')}, which {reason}; leave it out")


def query_groups(args: Namespace) -> int:
    """Heads of keys and values."""
    return int(args.num_query_groups if args.group_query_attention else args.num_attention_heads)


def parameters(lora: Lora, args: Namespace) -> int:
    """How many parameters are trained, over all layers.

    Args:
        args: Megatron's flags as parsed.
    """
    hidden = args.hidden_size
    width = args.kv_channels or hidden // args.num_attention_heads
    heads, groups, inner = args.num_attention_heads * width, query_groups(args) * width, args.ffn_hidden_size
    sizes = {
        "q": (hidden, heads),
        "k": (hidden, groups),
        "v": (hidden, groups),
        "o": (heads, hidden),
        "gate": (hidden, inner),
        "up": (hidden, inner),
        "down": (inner, hidden),
    }
    return int(args.num_layers * lora.rank * sum(sum(sizes[name]) for name in lora.targets))
