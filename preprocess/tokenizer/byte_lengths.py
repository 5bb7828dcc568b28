"""Loss masks without offsets: the bytes that each id stands for, summed, are the places of tokens in the text.

A record whose lengths do not sum up to its text, or whose bytes do not (by a sum over their values), is not decided
here: `Encoder` takes Hugging Face's offsets for it, and compares the ids.
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

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>$")
SPACE_MARK = "▁"


@dataclass(frozen=True, kw_only=True)
class ByteLengths:
    """For each id of a vocabulary, what it stands for in the text."""

    packed: NDArray[np.uint64]
    """uint64[V]: bytes in UTF-8 and the sum of their values, as `pack` puts them into one number."""
    control: NDArray[np.bool_]
    """bool[V]: a token that the text is cut at (an added one)."""
    prepends: bool
    """Whether a space is put in front of every piece between control tokens (SentencePiece)."""
    openers: tuple[str, ...]
    """Control tokens before which a text is cut whatever stands there."""
    composes: bool
    """Whether the text is brought to NFC first."""

    def edges(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64[T + 1]: the packed sums of all tokens before each, and of all.

        Args:
            ids: int32[T] of several texts.
            starts: int64[n], where each text begins in `ids`.
        """
        edges = np.zeros(len(ids) + 1, dtype=np.uint64)
        np.take(self.packed, ids, out=edges[1:], mode="clip")  # "raise" would copy; the writer looks at the ids
        if self.prepends and len(ids):
            control = self.control[ids]
            first = np.zeros(len(ids), dtype=bool)
            first[1:] = control[:-1]
            first[starts[starts < len(ids)]] = True
            first &= ~control & (unpacked_lengths(edges[1:]) > 0)
            edges[1:][first] -= pack(np.uint64(1), np.uint64(ord(" ")))
        return np.cumsum(edges, out=edges)

    def spell(self, ids: NDArray[np.int32], text: str) -> bool:
        """Whether ids, int32[L], stand for the very text, and not for one that was normalized or has holes."""
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        expected = pack(len(raw), raw.sum(dtype=np.uint64))
        same = bool(self.edges(ids, np.zeros(1, dtype=np.int64))[-1] == expected)
        return same and not (self.composes and unicodedata.normalize("NFC", text) != text)


def pack(lengths: Any, sums: Any) -> Any:
    """Lengths (below 2**32) and sums (modulo 2**32) in one uint64 each, so that one addition adds both."""
    return np.uint64(lengths) | (np.uint64(sums) << np.uint64(32))


def unpacked_lengths(packed: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The lengths in packed numbers, uint32 of the same shape."""
    return packed.astype(np.uint32)  # the lower half


class _Bytes(dict[int, str]):
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`), as a character
    of Latin-1; for others one that is none."""

    def __init__(self) -> None:
        kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in kept]
        super().__init__({byte: chr(byte) for byte in kept} | {256 + at: chr(byte) for at, byte in enumerate(others)})

    def __missing__(self, key: int) -> str:
        return "\u0100"


@lru_cache(maxsize=1)
def byte_lengths(tokenizer: Tokenizer) -> ByteLengths | None:
    """The table of a tokenizer; None for a kind whose tokens do not stand for fixed bytes (lower-casing ones, say)."""
    spec = json.loads(tokenizer.serialized)
    if spec["model"]["type"] != "BPE":
        return None
    normalizers = _steps(spec["normalizer"], "normalizers")
    pre_tokenizers = _steps(spec["pre_tokenizer"], "pretokenizers")
    kinds = [step["type"] for step in normalizers]
    byte_level = any(step["type"] == "ByteLevel" for step in pre_tokenizers)
    if byte_level:
        spaces = any(step.get("add_prefix_space") for step in pre_tokenizers)
        if not set(kinds) <= {"NFC"} or spaces:
            return None
    elif pre_tokenizers or not _is_sentencepiece(normalizers):
        return None
    pieces = [b""] * tokenizer.vocab_size  # a token that can stand for nothing has no length: its record takes offsets
    control = np.zeros(tokenizer.vocab_size, dtype=bool)
    characters = _Bytes()
    for token, number in spec["model"]["vocab"].items():
        pieces[number] = _raw(token, characters if byte_level else None) or b""
    openers = []
    for added in spec["added_tokens"]:
        if not (added["normalized"] or added["lstrip"] or added["single_word"]):
            openers.append(added["content"])
        pieces[added["id"]] = added["content"].encode("utf-8")
        control[added["id"]] = True
    lengths = np.fromiter(map(len, pieces), dtype=np.uint64, count=len(pieces))
    packed = pack(lengths, np.fromiter(map(sum, pieces), dtype=np.uint64, count=len(pieces)))
    return ByteLengths(
        packed=packed,
        control=control,
        prepends="Prepend" in kinds,
        openers=tuple(openers),
        composes=byte_level and "NFC" in kinds,
    )


def _raw(token: str, characters: _Bytes | None) -> bytes | None:
    if characters is not None:
        try:
            return token.translate(characters).encode("latin-1")
        except UnicodeEncodeError:
            return None
    if found := BYTE.match(token):
        return bytes([int(found[1], 16)])
    return token.replace(SPACE_MARK, " ").encode("utf-8")


def _steps(spec: Any, name: str) -> list[dict[str, Any]]:
    if spec is None:
        return []
    return list(spec[name]) if spec["type"] == "Sequence" else [spec]


def _is_sentencepiece(normalizers: list[dict[str, Any]]) -> bool:
    """Whether all that happens to a text is a space in front and every space becoming a mark."""
    known = [
        (step["type"] == "Prepend" and step["prepend"] == SPACE_MARK)
        or (step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE_MARK)
        for step in normalizers
    ]
    return all(known) and any(step["type"] == "Replace" for step in normalizers)
