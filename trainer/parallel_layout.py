"""How one training step is spread over processes: tensor, pipeline, context and data parallel sizes, and batch sizes.

    found = from_flags(args, world=16)      # --tensor-model-parallel-size 4 --global-batch-size 32
    found.tensor, found.data, found.global_batch        # 4, 4, 32

Megatron derives the same numbers after its process groups exist. They are worked out here from the parsed flags, so
that a wrong combination is an error before a process is started.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from sft_shards.formats.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ParallelLayout:
    """Numbers of processes and samples in one training step."""

    world: int
    """All processes: tensor x pipeline x context x data."""
    tensor: int
    """Tensor parallel size (TP)."""
    pipeline: int
    """Pipeline parallel size (PP)."""
    context: int
    """Context parallel size (CP): how many processes share the positions of a sample."""
    data: int
    """Data parallel size (DP): how many micro-batches run at the same time."""
    seq_length: int
    """Positions of a sample."""
    micro_batch: int
    """Samples of a micro-batch."""
    global_batch: int
    """Samples of an optimizer step, over all processes."""
    eval_batch: int
    """Samples of an evaluation step, over all processes."""

    @property
    def multiple(self) -> int:
        """Positions of which each conversation in a pack takes a multiple: every context rank gets two equal parts.

        Parts need not divide by TP where sequence parallelism spreads the positions of a whole sample again.
        """
        return 2 * self.context if self.context > 1 else 1

    def __str__(self) -> str:
        context = f" x CP {self.context}" if self.context > 1 else ""
        return f"TP {self.tensor} x PP {self.pipeline}{context} x DP {self.data}"


def from_flags(args: Namespace, world: int, *, epochs: bool = False, evaluate: bool = False) -> ParallelLayout:
    """Return the layout that Megatron will derive from these flags.

    Args:
        args: Megatron's parsed flags.
        world: processes on all machines.
        epochs: --epochs says how long to train.
        evaluate: nothing is trained, so no flag needs to say how.

    Raises:
        UsageError: a required flag is missing, two flags exclude each other, or the numbers do not divide.
    """
    for flag in ("num-layers", "hidden-size", "num-attention-heads", "seq-length"):
        if getattr(args, flag.replace("-", "_"), None) is None:
            remedy = "give it" if flag == "seq-length" else "give the model shape by --hf-config, or"
            raise UsageError(f"--{flag} is missing: {remedy} after -- or in the YAML file")
    given = [f"--{name}" for name in ("train-iters", "train-samples") if getattr(args, name.replace("-", "_"), None)]
    if epochs and given:
        raise UsageError(f"--epochs and {given[0]} both say how long to train; leave one of them out")
    if not evaluate and not epochs and not given:
        raise UsageError("--epochs is missing: say how long to train, or give --train-iters after --")
    if epochs and args.rampup_batch_size:
        raise UsageError("--epochs needs a batch size that does not change; give --train-samples instead")
    if not evaluate and args.lr is None:
        raise UsageError("--lr is missing: give a learning rate after -- or in the YAML file")
    tensor, pipeline = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    context = args.context_parallel_size
    _check_context(args)
    experts = (getattr(args, "expert_tensor_parallel_size", None) or tensor) * (
        getattr(args, "expert_model_parallel_size", None) or 1
    )
    shown = f"TP {tensor} x PP {pipeline}{f' x CP {context}' if context > 1 else ''}"
    _divides(world, tensor * pipeline * context, shown)
    _divides(world, experts * pipeline, f"EP x expert TP {experts} x PP {pipeline}")
    data = world // (tensor * pipeline * context)
    micro = args.micro_batch_size
    batch = args.global_batch_size or micro * data
    if micro < 1 or batch < 1 or batch % (micro * data):
        raise UsageError(
            f"--global-batch-size {batch} is not a multiple of --micro-batch-size {micro} x DP {data}; "
            f"make it one, such as {max(1, batch // max(1, micro * data)) * max(1, micro) * data}"
        )
    return ParallelLayout(
        world=world,
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        data=data,
        seq_length=args.seq_length,
        micro_batch=micro,
        global_batch=batch,
        eval_batch=getattr(args, "eval_global_batch_size", None) or batch,
    )


def _check_context(args: Namespace) -> None:
    """Raise UsageError if context parallelism is asked for and the positions of a sample cannot be spread."""
    context, tensor, length = args.context_parallel_size, args.tensor_model_parallel_size, args.seq_length
    if context < 1:
        raise UsageError(f"--context-parallel-size {context}: it is at least 1; leave it out for none")
    if context == 1:
        return
    multiple, shown = 2 * context, f"2 x CP {context}"
    if getattr(args, "sequence_parallel", False) and tensor > 1:
        multiple, shown = multiple * tensor, f"{shown} x TP {tensor} (--sequence-parallel)"
    if length % multiple:
        above = -(-length // multiple) * multiple
        raise UsageError(f"--seq-length {length} is not a multiple of {multiple} = {shown}; make it {above}")
    if not args.calculate_per_token_loss:
        raise UsageError(
            "--context-parallel-size above 1 needs calculate-per-token-loss: its ranks hold parts of one conversation, "
            "whose means cannot be averaged; leave the flag as it is"
        )
    for name in ("mtp_num_layers", "hybrid_context_parallel", "hierarchical_context_parallel_sizes"):
        if getattr(args, name, None):
            raise UsageError(f"--{name.replace('_', '-')} is not supported with --context-parallel-size; leave it out")


def _divides(world: int, size: int, layout: str) -> None:
    """Raise UsageError if `world` processes are not a multiple of the `size` that `layout` describes."""
    if world % size:
        few = "are too few for" if world < size else "do not divide into"
        raise UsageError(f"{world} process(es) {few} {layout}: --nproc x nodes must be a multiple of {size}")
