"""Which bytes of a text each token id stands for, for the kinds of tokenizer whose tokens stand for fixed bytes.

Supported are byte-level BPE, with or without NFC, and SentencePiece's BPE with byte fallback. Tokenizers that
lower-case, strip or rewrite texts are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>$")
"""How SentencePiece's models spell a token that stands for one byte."""
SPACE_MARK = "▁"
NO_BYTE = 256
"""In the place of a byte, for a character that stands for none."""


@dataclass(frozen=True, kw_only=True)
class TokenBytes:
    """The bytes of every id of a vocabulary. The ids "a", "" and "ï" have the bytes 61 c3 af and the offsets 0 1 1 3.

    An id that stands for no bytes makes its record take Hugging Face's offsets.
    """

    data: NDArray[np.uint8]
    """u8[B]: the bytes of all ids, one after the other."""
    offsets: NDArray[np.int64]
    """int64[V + 1], in bytes: id i stands for `data[offsets[i]:offsets[i + 1]]`."""
    control: NDArray[np.bool_]
    """bool[V]: added tokens, at which a text is cut before anything else is done to it."""
    prepends_space: bool
    """Whether a space is put in front of every piece between control tokens (SentencePiece)."""
    openers: tuple[str, ...]
    """Control tokens before which a text is cut whatever stands there."""
    normalizes: bool
    """Whether the text is brought to NFC first."""
    swallowing: tuple[str, ...]
    """Added tokens that take the white space behind them along, as Phi-3's do; none where other added tokens make it
    uncertain which white space that is."""

    def decode(self, ids: NDArray[Any]) -> str:
        """Return the text of ids, int[L]; bytes that are no UTF-8 by themselves become U+FFFD."""
        raw, bounds = self.data.tobytes(), self.offsets
        return b"".join(raw[bounds[one] : bounds[one + 1]] for one in ids.tolist()).decode("utf-8", "replace")


def token_bytes(spec: Mapping[str, Any], vocab_size: int) -> TokenBytes | None:
    """Return the bytes of every id; None for a kind of tokenizer whose tokens do not stand for fixed bytes.

    Args:
        spec: a tokenizer as the JSON of `tokenizers` has it.
        vocab_size: one more than the largest id.
    """
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
    tokens = [""] * vocab_size
    for token, number in spec["model"]["vocab"].items():
        tokens[number] = token
    control = np.zeros(vocab_size, dtype=bool)
    openers = []
    for added in spec["added_tokens"]:
        if not (added["normalized"] or added["lstrip"] or added["single_word"]):
            openers.append(added["content"])
        control[added["id"]] = True
        spelled = added["content"].encode("utf-8")
        # Spelled as the vocabulary spells bytes, so that one step reads all tokens.
        tokens[added["id"]] = "".join(ALPHABET[byte] for byte in spelled) if byte_level else added["content"]
    data, offsets = _byte_level(tokens) if byte_level else _sentencepiece(tokens, control)
    return TokenBytes(
        data=data,
        offsets=offsets,
        control=control,
        prepends_space="Prepend" in normalizer_types,
        openers=tuple(openers),
        normalizes=byte_level and "NFC" in normalizer_types,
        swallowing=_swallowing(spec["added_tokens"]),
    )


def _swallowing(added: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return `TokenBytes.swallowing`.

    It is certain where such a token is found in the text as it is, and shares no character with another one that is
    found there, and no added token takes white space in front of it or is white space at an end.
    """
    found = tuple(token["content"] for token in added if token["rstrip"])
    if not found:
        return ()
    every = [token["content"] for token in added]
    simple = all(one and one == one.strip() and one.isascii() for one in every)
    exact = not any(
        token["lstrip"] or token["single_word"] or (token["rstrip"] and token["normalized"]) for token in added
    )
    apart = not any(_may_overlap(one, other) for one in found for other in every)
    return found if simple and exact and apart else ()


def _may_overlap(one: str, other: str) -> bool:
    """Return whether two texts can share characters of a third: "ab" and "bc" can, in "abc"."""
    if one != other and (one in other or other in one):
        return True
    ends = range(1, min(len(one), len(other)))
    return any(one[-size:] == other[:size] or other[-size:] == one[:size] for size in ends)


def _alphabet() -> list[str]:
    """Return the character that stands for each byte in a byte-level vocabulary: GPT-2's `bytes_to_unicode`."""
    same = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in same else chr(next(moved)) for byte in range(256)]


ALPHABET = _alphabet()


def _byte_level(tokens: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return `data` and `offsets` of tokens in the byte-level alphabet.

    A token with a character outside of the alphabet stands for nothing.
    """
    table = np.full(0x110000, NO_BYTE, dtype=np.uint16)
    table[list(map(ord, ALPHABET))] = np.arange(256)
    points = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    found = table[points]
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    owners = np.repeat(np.arange(len(tokens)), lengths)
    nothing = np.zeros(len(tokens), dtype=bool)
    nothing[owners[found == NO_BYTE]] = True
    lengths[nothing] = 0
    return found[~nothing[owners]].astype(np.uint8), _offsets(lengths)


def _sentencepiece(tokens: Sequence[str], control: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return `data` and `offsets` of SentencePiece's tokens, of which `control` are what they spell."""
    pieces = [
        token.encode("utf-8") if is_control else _piece_bytes(token)
        for token, is_control in zip(tokens, control.tolist(), strict=True)
    ]
    lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
    return np.frombuffer(b"".join(pieces), dtype=np.uint8), _offsets(lengths)


def _piece_bytes(token: str) -> bytes:
    if found := BYTE_TOKEN.match(token):
        return bytes([int(found[1], 16)])
    return token.replace(SPACE_MARK, " ").encode("utf-8")


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


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
