"""What `--lora-rank` and its companions ask for: which linear layers get an adapter, of which rank and strength.

An adapter adds `alpha / rank * B(A(dropout(x)))` to the output of a frozen linear layer, with A `[rank, inputs]` and B
`[outputs, rank]`: LoRA as the library PEFT parametrises it, one pair for each of q, k, v, o, gate, up and down, also
where Megatron keeps several of them in one matrix. So what is trained here is what PEFT would train, and is exported
without arithmetic. Nothing here imports torch; the modules are in `sft_shards.trainer.model.adapters`.

    Lora(rank=16, alpha=32.0, dropout=0.0, targets=("q", "v"), architecture="LlamaForCausalLM")
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.job import Job
from sft_shards.trainer.model.architectures import ARCHITECTURES

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
"""Names that `--lora-targets` takes; each is a linear layer of a Hugging Face model's layer, mostly `NAME_proj`."""
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
    architecture: str
    """The model's, a name in `ARCHITECTURES`."""

    @property
    def scaling(self) -> float:
        """What B's output is multiplied by."""
        return self.alpha / self.rank

    def module(self, layer: int, target: str) -> str:
        """The name of a linear layer in the Hugging Face model, such as `model.layers.3.self_attn.q_proj`."""
        return f"model.layers.{layer}.{modules(self.architecture)[target]}"


def modules(architecture: str) -> dict[str, str]:
    """The linear layers that can have an adapter: target to module below a layer, such as `mlp.gate_proj`."""
    kind = ARCHITECTURES[architecture]
    found = {target: f"self_attn.{target}_proj" for target in TARGETS[:4]}
    if kind.experts is not None:
        return found
    halves = dict(zip(("gate", "up"), kind.gate_up, strict=True)) if len(kind.gate_up) == 2 else {}
    return {**found, **halves, "down": kind.down}


def parse(job: Job, *, architecture: str) -> Lora | None:
    """The adapters that a job asks for; None where it trains all weights.

    Args:
        architecture: the model's, a name in `ARCHITECTURES`; "" where no config.json gives the model shape.

    Raises:
        UsageError: an option without --lora-rank, --lora-rank without --model, a value out of range, or a target that
            is unknown or cannot have an adapter in this architecture.
    """
    companions = {"alpha": job.lora_alpha, "dropout": job.lora_dropout, "targets": job.lora_targets}
    if job.lora_rank is None:
        if given := [name for name, value in companions.items() if value is not None]:
            raise UsageError(f"--lora-{given[0]} needs --lora-rank; give it, or leave --lora-{given[0]} out")
        return None
    if job.model is None:
        raise UsageError("--lora-rank needs --model: adapters are trained beside the weights of a Hugging Face model")
    alpha = 2.0 * job.lora_rank if job.lora_alpha is None else job.lora_alpha
    dropout = job.lora_dropout or 0.0
    for name, value, good, wanted in (
        ("rank", job.lora_rank, job.lora_rank >= 1, "1 or more"),
        ("alpha", alpha, alpha > 0, "above 0"),
        ("dropout", dropout, 0 <= dropout < 1, "from 0 to below 1"),
    ):
        if not good:
            raise UsageError(f"--lora-{name} {value}: a number {wanted} is expected")
    targets = _targets(job.lora_targets, architecture)
    return Lora(rank=job.lora_rank, alpha=alpha, dropout=dropout, targets=targets, architecture=architecture)


def _targets(text: str | None, architecture: str) -> tuple[str, ...]:
    """The linear layers named in `q,k,v`; without a text all that can have an adapter."""
    possible = modules(architecture)
    if text is None:
        return tuple(target for target in TARGETS if target in possible)
    asked = [name.strip() for name in text.split(",")]
    if unknown := [name for name in asked if name not in TARGETS]:
        raise UsageError(f"--lora-targets {text}: {unknown[0]!r} is none of {','.join(TARGETS)}")
    if without := [name for name in asked if name not in possible]:
        if ARCHITECTURES[architecture].experts is not None:
            reason = "lies in the experts, where PEFT would load another adapter than the one trained"
        else:
            reason = f"is half of one linear layer in {architecture}, for which PEFT has one adapter, not two"
        raise UsageError(f"--lora-targets {text}: {without[0]!r} {reason}; use {','.join(possible)}")
    return tuple(target for target in TARGETS if target in asked)


def check(args: Namespace) -> None:
    """Check that this layout and these flags can train adapters.

    Args:
        args: Megatron's flags as parsed; the model's shape is in them.

    Raises:
        UsageError: no, with the remedy.
    """
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


def parameters(lora: Lora, args: Namespace, *, tensor: int = 1) -> int:
    """How many parameters are trained, over all layers.

    Args:
        args: Megatron's flags as parsed.
        tensor: tensor ranks; those of one rank are counted, of which one half of each pair is cut over the ranks.
    """
    hidden = args.hidden_size
    width = args.kv_channels or hidden // args.num_attention_heads
    heads, groups, inner = args.num_attention_heads * width, query_groups(args) * width, args.ffn_hidden_size
    column = {"q": heads, "k": groups, "v": groups, "gate": inner, "up": inner}
    row = {"o": heads, "down": inner}
    each = [hidden + column[name] // tensor for name in lora.targets if name in column]
    each += [hidden + row[name] // tensor for name in lora.targets if name in row]
    return int(args.num_layers * lora.rank * sum(each))


def describe(lora: Lora, args: Namespace) -> str:
    """The adapters in words, for the summary."""
    dropout = f", dropout {lora.dropout:g}" if lora.dropout else ""
    return (
        f"LoRA: rank {lora.rank}, alpha {lora.alpha:g}{dropout} on {','.join(lora.targets)}: "
        f"{parameters(lora, args):,} parameters are trained, the model's own are frozen"
    )
