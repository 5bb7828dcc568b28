"""Ids back to texts, for whoever looks at a shard directory: by the tokenizer that lies in it.

    Decoder(ShardDirectory("shards")).decode(ids)

A span of tokens is decoded by the bytes of its ids, where they stand for fixed bytes: Hugging Face's own decoder drops
a space at the beginning of what it is given. transformers is asked only where `tokenizer.json` does not say all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, first_line
from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.contents import read_inside
from sft_shards.formats.token_bytes import token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = "tokenizer"
"""Below the shard directory."""


class Decoder:
    """Decodes the ids of a shard directory.

    Raises:
        DataError: the tokenizer in the directory is not there, or cannot be read.
    """

    def __init__(self, directory: ShardDirectory) -> None:
        size = directory.manifest.tokenizer.vocab_size
        try:
            self._backend = _backend(directory, size)
            spec = json.loads(self._backend.to_str())
            self._bytes = token_bytes(spec, max(size, self._backend.get_vocab_size()))
        except Exception as error:  # of tokenizers: of no class of its own
            raise DataError(
                f"{directory.path / FOLDER}: no tokenizer that can be read ({first_line(error)}); "
                "make the shards again, or copy the whole directory"
            ) from None

    def decode(self, ids: NDArray[Any]) -> str:
        """Return the text of ids, int[L], control tokens included; bytes that are no UTF-8 become U+FFFD."""
        if self._bytes is not None:
            return self._bytes.decode(ids)
        text: str = self._backend.decode(ids.tolist(), skip_special_tokens=False)
        return text

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Look up the ids of tokens as they are spelled, those that the vocabulary has."""
        found = [self._backend.token_to_id(token) for token in tokens]
        return [one for one in found if one is not None]


def _backend(directory: ShardDirectory, size: int) -> Tokenizer:
    """Return Hugging Face's tokenizer: as `tokenizer.json` says, or with what only transformers adds to it."""
    from tokenizers import Tokenizer

    if "tokenizer.json" in directory.manifest.tokenizer.files:
        found = Tokenizer.from_str(read_inside(directory.path, f"{FOLDER}/tokenizer.json").decode("utf-8"))
        if found.get_vocab_size() >= size:
            return found
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(directory.path / FOLDER, local_files_only=True)
    backend: Tokenizer = loaded.backend_tokenizer
    return backend
