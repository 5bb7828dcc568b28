"""Do shards and sequence length fit the model whose `config.json` was named? Asked before a process is started."""

from __future__ import annotations

from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import TokenizerInfo, vocabulary_hash
from sft_shards.trainer.model.hf_config import ModelShape


def check_shards(shape: ModelShape, info: TokenizerInfo, shards: Path) -> None:
    """Do these shards' ids mean to the model what they mean to their tokenizer?

    The vocabulary is compared with that of the `tokenizer.json` beside the config.json, where there is one.

    Raises:
        DataError: an id has no row in the embedding, or the tokenizer is another one.
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
        if vocabulary_hash(vocabulary) != info.vocab_sha256:  # what else the folder's tokenizer_config.json adds
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
    """Was the model trained for samples of so many positions, and does it look back over all of them?

    Args:
        stretched: the user gave --max-position-embeddings, so knows that it is more.

    Raises:
        UsageError: no.
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
