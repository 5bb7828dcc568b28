"""Loss masks without offsets: the bytes that each id stands for, summed, are the places of tokens in the text.

A record whose lengths do not sum up to its text, or whose bytes do not (by a sum over their values), is not decided
here: `Encoder` takes Hugging Face's offsets for it, and compares the ids.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.tokenizer import Tokenizer

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>$")
SPACE_MARK = "▁"


@dataclass(frozen=True, kw_only=True)
class ByteLengths:
    """For each id of a vocabulary, what it stands for in the text."""

    lengths: NDArray[np.int64]
    """int64[V]: bytes in UTF-8."""
    sums: NDArray[np.int64]
    """int64[V]: the sum of the values of these bytes."""
    control: NDArray[np.bool_]
    """bool[V]: a token that the text is cut at (an added one)."""
    prepends: bool
    """Whether a space is put in front of every piece between control tokens (SentencePiece)."""
    composes: bool
    """Whether the text is brought to NFC first, so that only texts in NFC have their own lengths."""

    def of(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths and byte sums of tokens, int64[T] each.

        Args:
            ids: int32[T] of several texts.
            starts: int64[n], where each text begins in `ids`.
        """
        lengths, sums = self.lengths[ids], self.sums[ids]
        if self.prepends and len(ids):
            control = self.control[ids]
            first = np.zeros(len(ids), dtype=bool)
            first[1:] = control[:-1]
            first[starts[starts < len(ids)]] = True
            first &= ~control
            lengths[first] -= 1
            sums[first] -= ord(" ")
        return lengths, sums


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + at): byte for at, byte in enumerate(others)}


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
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    sums = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    control = np.zeros(tokenizer.vocab_size, dtype=bool)
    characters = _bytes_of_characters()
    for token, number in spec["model"]["vocab"].items():
        raw = _raw(token, characters if byte_level else None)
        if raw is not None:  # a token that can stand for nothing has no length, and its record takes offsets
            lengths[number], sums[number] = len(raw), sum(raw)
    for added in spec["added_tokens"]:
        raw = added["content"].encode("utf-8")
        lengths[added["id"]], sums[added["id"]], control[added["id"]] = len(raw), sum(raw), True
    return ByteLengths(
        lengths=lengths, sums=sums, control=control, prepends="Prepend" in kinds, composes=byte_level and "NFC" in kinds
    )


def _raw(token: str, characters: dict[str, int] | None) -> bytes | None:
    if characters is not None:
        values = [characters.get(character) for character in token]
        return None if None in values else bytes(value for value in values if value is not None)
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
