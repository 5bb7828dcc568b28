"""Do these shards fit each other, this call and this model? Asked before a process is started or a GPU is touched."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory, TokenizerInfo, vocabulary_hash


def parse_shards(text: str) -> tuple[str, Fraction]:
    """The directory and the weight in `DIR[:WEIGHT]`; a directory whose own name ends so is taken as it is.

    Raises:
        UsageError: a weight of zero or below.
    """
    directory, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, Fraction(1)
    try:
        value = Fraction(weight)
    except (ValueError, ZeroDivisionError):
        return text, Fraction(1)
    if value <= 0:
        raise UsageError(f"--shards {text}: a weight is above 0; leave the directory out to give it none")
    return directory, value


def parse_epochs(text: str) -> Fraction:
    """The number of epochs; UsageError where it is none, or not above 0."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise UsageError(f"--epochs {text}: a number above 0 is expected, such as 3 or 0.5")
    return value


def short_names(paths: Iterable[Path]) -> list[str]:
    """A name for each directory: the last part of its path, or as many as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts)) and len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(each[-depth:]) for each in parts]
    return [name if names.count(name) == 1 else f"{name}#{names[:n].count(name) + 1}" for n, name in enumerate(names)]


def open_shards(paths: Iterable[str]) -> list[ShardDirectory]:
    """Open the directories and check that they are of one vocabulary and hold something to train on.

    Raises:
        DataError: a directory that is not complete, another tokenizer's, without train split, or whose ids for EOS
            or padding are outside its vocabulary.
    """
    directories = [ShardDirectory(path) for path in paths]
    first = directories[0]
    for directory in directories:
        info = directory.manifest.tokenizer
        for name, value in (("EOS", info.eos_id), ("padding", info.pad_id)):
            if not 0 <= value < info.vocab_size:
                raise DataError(
                    f"{directory.path}: the {name} id {value} is outside its vocabulary of {info.vocab_size}; "
                    "make the shards again"
                )
        if info.vocab_sha256 != first.manifest.tokenizer.vocab_sha256:
            raise DataError(
                f"{directory.path}: tokenized with {info.name}, {first.path} with {first.manifest.tokenizer.name}, and "
                "their vocabularies differ; tokenize both with the tokenizer of the model"
            )
        if "train" not in directory.manifest.splits or not directory.manifest.splits["train"].sequences:
            raise DataError(f"{directory.path}: its train split is empty; nothing to train on")
    return directories


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one step is spread over processes."""

    world: int
    tensor: int
    pipeline: int
    data: int
    seq_length: int
    """Positions in a sample."""
    micro_batch: int
    """Samples per forward step."""
    global_batch: int
    """Samples per optimizer step, over all processes."""
    eval_batch: int
    """Samples per evaluation step, over all processes."""


def layout(args: Namespace, world: int, *, epochs: bool = False) -> Layout:
    """The layout that Megatron will make of these flags; what it needs and was not given is an error here.

    Args:
        epochs: --epochs says how long to train.

    Raises:
        UsageError: a flag is missing, or the numbers do not divide.
    """
    for flag in ("num-layers", "hidden-size", "num-attention-heads", "seq-length"):
        if getattr(args, flag.replace("-", "_"), None) is None:
            remedy = "give it" if flag == "seq-length" else "give the model's shape by --hf-config, or"
            raise UsageError(f"--{flag} is missing: {remedy} after -- or in the YAML file")
    given = [f"--{name}" for name in ("train-iters", "train-samples") if getattr(args, name.replace("-", "_"), None)]
    if epochs and given:
        raise UsageError(f"--epochs and {given[0]} both say how long to train; leave one of them out")
    if not epochs and not given:
        raise UsageError("--epochs is missing: say how long to train, or give --train-iters after --")
    if epochs and args.rampup_batch_size:
        raise UsageError("--epochs needs a batch size that does not change; give --train-samples instead")
    if args.lr is None:
        raise UsageError("--lr is missing: give a learning rate after -- or in the YAML file")
    if args.context_parallel_size > 1:
        raise UsageError("--context-parallel-size above 1 is not supported; use --tensor-model-parallel-size")
    tensor, pipeline = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    experts = (getattr(args, "expert_tensor_parallel_size", None) or tensor) * (
        getattr(args, "expert_model_parallel_size", None) or 1
    )
    _divides(world, tensor * pipeline, f"TP {tensor} x PP {pipeline}")
    _divides(world, experts * pipeline, f"EP x expert TP {experts} x PP {pipeline}")
    data = world // (tensor * pipeline)
    micro = args.micro_batch_size
    batch = args.global_batch_size or micro * data
    if micro < 1 or batch < 1 or batch % (micro * data):
        raise UsageError(
            f"--global-batch-size {batch} is not a multiple of --micro-batch-size {micro} x DP {data}; "
            f"make it one, such as {max(1, batch // max(1, micro * data)) * max(1, micro) * data}"
        )
    return Layout(
        world=world,
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        seq_length=args.seq_length,
        micro_batch=micro,
        global_batch=batch,
        eval_batch=getattr(args, "eval_global_batch_size", None) or batch,
    )


def _divides(world: int, size: int, layout: str) -> None:
    if world % size:
        few = "are too few for" if world < size else "do not divide into"
        raise UsageError(f"{world} process(es) {few} {layout}: --nproc x nodes must be a multiple of {size}")


def model_vocabulary(
    args: Namespace, info: TokenizerInfo, tensor: int, path: Path, *, rows: int = 0
) -> tuple[int, int]:
    """Ids the model must know, and rows of its embedding: padded to a multiple of divisor x TP.

    Worked out here because Megatron's null tokenizer counts one id more before 0.18 than after, which would pad
    the same shards to another model.

    Args:
        rows: of the checkpoint's embedding; 0: not known. They are kept as they are where TP divides them.

    Raises:
        DataError: the vocabulary that the user asks for has no room for the shards' ids.
    """
    for flag in ("vocab_size", "padded_vocab_size"):
        asked = getattr(args, flag, None)
        if asked is not None and asked < info.vocab_size:
            raise DataError(
                f"{path}: its ids reach {info.vocab_size - 1} ({info.name}), --{flag.replace('_', '-')} {asked} is too "
                f"small; leave it out, or use shards made with the model's tokenizer"
            )
    size = max(info.vocab_size, args.vocab_size or 0)
    if rows and rows % tensor == 0:
        return size, rows
    multiple = args.make_vocab_size_divisible_by * tensor
    padded = getattr(args, "padded_vocab_size", None) or -(-max(size, rows) // multiple) * multiple
    return size, padded


def check_tokenizer(args: Namespace, info: TokenizerInfo, path: Path) -> None:
    """Compare the tokenizer that the user names with the one that made the shards.

    Raises:
        UsageError: the tokenizer cannot be loaded, or is of a type that cannot be compared.
        DataError: it gives ids another meaning.
    """
    if args.tokenizer_type in (None, "NullTokenizer"):
        return
    if args.tokenizer_type != "HuggingFaceTokenizer":
        raise UsageError(
            f"--tokenizer-type {args.tokenizer_type} cannot be compared with the shards' ({info.name}); leave it out, "
            "or name the folder with --tokenizer-type HuggingFaceTokenizer --tokenizer-model DIR"
        )
    name = args.tokenizer_model
    if not name:
        raise UsageError("--tokenizer-type HuggingFaceTokenizer needs --tokenizer-model NAME_OR_DIR; or leave both out")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--tokenizer-model {name}: cannot be loaded ({reason})") from None
    if vocabulary_hash(tokenizer.get_vocab()) != info.vocab_sha256:
        raise DataError(
            f"{path}: tokenized with {info.name} ({info.vocab_size} ids), whose vocabulary is not that of "
            f"--tokenizer-model {name} ({len(tokenizer)} ids); tokenize the data again with {name}"
        )
