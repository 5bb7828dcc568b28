"""Check that shards, flags and model fit each other, before a process is started or a GPU is touched.

The same id must mean the same token in the shards and in the model; every id must have a row in the embedding; and the
model must have been trained for as many positions as a sample has.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import TokenizerInfo, vocabulary_hash
from sft_shards.trainer.model.hf_config import ModelShape


def model_vocabulary(
    args: Namespace, info: TokenizerInfo, tensor: int, path: Path, *, rows: int = 0, exact: bool = True
) -> tuple[int, int]:
    """Return the number of ids that the model must know, and the rows of its embedding.

    The rows are padded to a multiple of TP if the model's own number is known, else to one of
    --make-vocab-size-divisible-by x TP. They are computed here because Megatron's null tokenizer counts one id more
    before 0.18 than after: the same shards would be padded to two different models.

    Args:
        tensor: TP size.
        path: the shard directory, for messages.
        rows: of the embedding of the model's own checkpoint; 0: not known.
        exact: the user has not said anything about the vocabulary; otherwise Megatron's divisor counts as well.

    Raises:
        DataError: the vocabulary size in the flags is too small for the shards' ids.
    """
    for flag in ("vocab_size", "padded_vocab_size"):
        asked = getattr(args, flag, None)
        if asked is not None and asked < info.vocab_size:
            raise DataError(
                f"{path}: its ids reach {info.vocab_size - 1} ({info.name}), --{flag.replace('_', '-')} {asked} is too "
                f"small; leave it out, or use shards made with the model's tokenizer"
            )
    size = max(info.vocab_size, args.vocab_size or 0)
    if rows and exact:
        return size, -(-max(size, rows) // tensor) * tensor
    multiple = args.make_vocab_size_divisible_by * tensor
    padded = getattr(args, "padded_vocab_size", None) or -(-max(size, rows) // multiple) * multiple
    return size, padded


def check_tokenizer(args: Namespace, info: TokenizerInfo, path: Path) -> None:
    """Compare the tokenizer in Megatron's flags with the one that made the shards.

    Raises:
        UsageError: the tokenizer cannot be loaded, or is of a type that cannot be compared.
        DataError: its vocabulary is another one.
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


def check_shards(shape: ModelShape, info: TokenizerInfo, shards: Path) -> None:
    """Compare the shards' vocabulary with the model's: its embedding, and the `tokenizer.json` in its folder, if any.

    Raises:
        DataError: an id has no row in the embedding, or the vocabularies differ.
    """
    if info.vocab_size > shape.vocab_size:
        raise DataError(
            f"{shards}: its ids reach {info.vocab_size - 1} ({info.name}), the embedding of {shape.path} has "
            f"{shape.vocab_size} rows; use shards made with the model's tokenizer"
        )
    folder = Path(shape.path).parent
    if Path(shape.path).name != "config.json" or not (folder / "tokenizer.json").is_file():
        return
    from tokenizers import Tokenizer

    try:
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        if vocabulary_hash(vocabulary) != info.vocab_sha256:  # tokenizer_config.json may add tokens
            from transformers import AutoTokenizer

            vocabulary = AutoTokenizer.from_pretrained(str(folder)).get_vocab()
    except Exception as error:  # the library raises bare exceptions
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}/tokenizer.json: cannot be loaded ({reason}); fetch the model again") from None
    if vocabulary_hash(vocabulary) != info.vocab_sha256:
        raise DataError(
            f"{shards}: tokenized with {info.name} ({info.vocab_size} ids), whose vocabulary is not that of "
            f"{folder}/tokenizer.json ({len(vocabulary)} ids); tokenize the data again with {folder}"
        )


def check_length(shape: ModelShape, seq_length: int, *, stretched: bool) -> None:
    """Check that a sample has no more positions than the model was trained for and can attend to.

    Args:
        stretched: the user gave --max-position-embeddings, to train the model for more positions.

    Raises:
        UsageError: --seq-length is beyond the model's positions or its sliding window.
    """
    if seq_length > shape.max_positions and not stretched:
        raise UsageError(
            f"--seq-length {seq_length} is beyond max_position_embeddings {shape.max_positions} of {shape.path}; "
            f"shorten it, or give --max-position-embeddings {seq_length} to train the model for longer ones"
        )
    if shape.window is not None and seq_length > shape.window:
        raise UsageError(
            f"{shape.path}: sliding_window {shape.window} is below --seq-length {seq_length}, and Megatron's local "
            f"attention has no such window; use --seq-length {shape.window} or less"
        )
