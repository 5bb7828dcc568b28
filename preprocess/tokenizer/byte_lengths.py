"""How many bytes of the text each token id stands for: enough to place every token without offsets.

Summed from the left, the byte lengths of tokens are the positions of the tokens in the text. Three tokens "na", "ï",
"ve" have the lengths 2, 2, 2 in UTF-8, and begin at bytes 0, 2 and 4.

The table also holds the sum of the values of each token's bytes. If neither the lengths nor the values of a record's
tokens sum up to those of its text, the tokenizer normalized the text or left something out. Such a record is not placed
by byte lengths; it takes Hugging Face's offsets.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>$")
"""How SentencePiece's models spell a token that stands for one byte."""
SPACE_MARK = "▁"


@dataclass(frozen=True, kw_only=True)
class ByteLengths:
    """What each id of a vocabulary stands for in the text."""

    packed: NDArray[np.uint64]
    """uint64[V]: for each id the number of its bytes in UTF-8 and the sum of their values, put together by `pack`."""
    control: NDArray[np.bool_]
    """bool[V]: added tokens, at which a text is cut before anything else is done to it."""
    prepends_space: bool
    """Whether a space is put in front of every piece between control tokens (SentencePiece)."""
    openers: tuple[str, ...]
    """Control tokens before which a text is cut whatever stands there."""
    normalizes: bool
    """Whether the text is brought to NFC first."""

    def packed_sums(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return uint64[T + 1]: the packed sums of all tokens before each, and of all tokens.

        Tokens "na", "ï", "ve" have the lengths [0, 2, 4, 6] in the lower halves, and in the upper halves the sums
        [0, 207, 573, 792] of the bytes' values. A space that the tokenizer puts in front is taken off its token.

        Args:
            ids: int32[T] of several texts.
            starts: int64[n], where each text begins in `ids`.
        """
        sums = np.zeros(len(ids) + 1, dtype=np.uint64)
        np.take(self.packed, ids, out=sums[1:], mode="clip")  # "raise" would copy; the writer checks the ids
        if self.prepends_space and len(ids):
            control = self.control[ids]
            first = np.zeros(len(ids), dtype=bool)
            first[1:] = control[:-1]
            first[starts[starts < len(ids)]] = True
            first &= ~control & (unpack_lengths(sums[1:]) > 0)
            sums[1:][first] -= pack(np.uint64(1), np.uint64(ord(" ")))
        return np.cumsum(sums, out=sums)

    def spells(self, ids: NDArray[np.int32], text: str) -> bool:
        """Return whether ids, int32[L], stand for this very text, and not for a normalized one or one with holes."""
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        expected = pack(len(raw), raw.sum(dtype=np.uint64))
        same = bool(self.packed_sums(ids, np.zeros(1, dtype=np.int64))[-1] == expected)
        return same and not (self.normalizes and unicodedata.normalize("NFC", text) != text)


def pack(lengths: Any, sums: Any) -> Any:
    """Put lengths (below 2**32) and sums (modulo 2**32) into one uint64 each, so that one addition adds both.

    Length 2 and sum 207 are 207 * 2**32 + 2.
    """
    return np.uint64(lengths) | (np.uint64(sums) << np.uint64(32))


def unpack_lengths(packed: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the lengths in packed numbers, uint32 with as many entries."""
    return packed.astype(np.uint32)  # keeps the lower half


class _ByteLevelAlphabet(dict[int, str]):
    """The byte that each character of a byte-level vocabulary stands for, as a character of Latin-1.

    This is GPT-2's `bytes_to_unicode`, turned round. Any other character gives one that Latin-1 lacks.
    """

    def __init__(self) -> None:
        same = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        moved = [byte for byte in range(256) if byte not in same]
        super().__init__({byte: chr(byte) for byte in same} | {256 + at: chr(byte) for at, byte in enumerate(moved)})

    def __missing__(self, key: int) -> str:
        return "\u0100"


@lru_cache(maxsize=1)
def byte_lengths(tokenizer: Tokenizer) -> ByteLengths | None:
    """Return the table of a tokenizer; None for a kind whose tokens do not stand for fixed bytes.

    Supported are byte-level BPE, with or without NFC, and SentencePiece's BPE with byte fallback. Tokenizers that
    lower-case, strip or rewrite texts are not.
    """
    spec = json.loads(tokenizer.serialized)
    if spec["model"]["type"] != "BPE":
        return None
    normalizers = _steps(spec["normalizer"], "normalizers")
    pre_tokenizers = _steps(spec["pre_tokenizer"], "pretokenizers")
    normalizer_types = [step["type"] for step in normalizers]
    byte_level = any(step["type"] == "ByteLevel" for step in pre_tokenizers)
    if byte_level:
        adds_space = any(step.get("add_prefix_space") for step in pre_tokenizers)
        if not set(normalizer_types) <= {"NFC"} or adds_space:
            return None
    elif pre_tokenizers or not _is_sentencepiece(normalizers):
        return None
    pieces = [b""] * tokenizer.vocab_size  # an id without bytes makes its record take offsets
    control = np.zeros(tokenizer.vocab_size, dtype=bool)
    alphabet = _ByteLevelAlphabet() if byte_level else None
    for token, number in spec["model"]["vocab"].items():
        pieces[number] = _token_bytes(token, alphabet) or b""
    openers = []
    for added in spec["added_tokens"]:
        if not (added["normalized"] or added["lstrip"] or added["single_word"]):
            openers.append(added["content"])
        pieces[added["id"]] = added["content"].encode("utf-8")
        control[added["id"]] = True
    lengths = np.fromiter(map(len, pieces), dtype=np.uint64, count=len(pieces))
    return ByteLengths(
        packed=pack(lengths, np.fromiter(map(sum, pieces), dtype=np.uint64, count=len(pieces))),
        control=control,
        prepends_space="Prepend" in normalizer_types,
        openers=tuple(openers),
        normalizes=byte_level and "NFC" in normalizer_types,
    )


def _token_bytes(token: str, alphabet: _ByteLevelAlphabet | None) -> bytes | None:
    """Return the bytes that a token of the vocabulary stands for; None where it can stand for none."""
    if alphabet is not None:
        try:
            return token.translate(alphabet).encode("latin-1")
        except UnicodeEncodeError:
            return None
    if found := BYTE_TOKEN.match(token):
        return bytes([int(found[1], 16)])
    return token.replace(SPACE_MARK, " ").encode("utf-8")


def _steps(spec: Any, name: str) -> list[dict[str, Any]]:
    if spec is None:
        return []
    return list(spec[name]) if spec["type"] == "Sequence" else [spec]


def _is_sentencepiece(normalizers: list[dict[str, Any]]) -> bool:
    """Return whether all that happens to a text is a space in front and every space becoming a mark."""
    known = [
        (step["type"] == "Prepend" and step["prepend"] == SPACE_MARK)
        or (step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE_MARK)
        for step in normalizers
    ]
    return all(known) and any(step["type"] == "Replace" for step in normalizers)
