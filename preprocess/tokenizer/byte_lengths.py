"""How many bytes of the text each token id stands for: enough to place every token without offsets.

Summed from the left, the byte lengths of tokens are the positions of the tokens in the text. Three tokens "na", "ï",
"ve" have the lengths 2, 2, 2 in UTF-8, and begin at bytes 0, 2 and 4.

The table also holds the sum of the values of each token's bytes. If neither the lengths nor the values of a record's
tokens sum up to those of its text, the tokenizer normalized the text or left something out. Such a record is not placed
by byte lengths; it takes Hugging Face's offsets.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.token_bytes import TokenBytes
from sft_shards.preprocess.tokenizer.nfc import Normalization
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""White space as Unicode defines it, and as `tokenizers` takes it along."""


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
    normalization: Normalization | None
    """How the text is brought to NFC first; None where it is not."""
    swallowed: re.Pattern[bytes] | None
    """Matches a token and the white space that it takes along, group 1; None where no token does."""

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
        return same and not (self.normalization is not None and unicodedata.normalize("NFC", text) != text)


def pack(lengths: Any, sums: Any) -> Any:
    """Put lengths (below 2**32) and sums (modulo 2**32) into one uint64 each, so that one addition adds both.

    Length 2 and sum 207 are 207 * 2**32 + 2.
    """
    return np.uint64(lengths) | (np.uint64(sums) << np.uint64(32))


def unpack_lengths(packed: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the lengths in packed numbers, uint32 with as many entries."""
    return packed.astype(np.uint32)  # keeps the lower half


@lru_cache(maxsize=1)
def byte_lengths(tokenizer: Tokenizer) -> ByteLengths | None:
    """Return the table of a tokenizer; None for a kind whose tokens do not stand for fixed bytes."""
    found = tokenizer.token_bytes
    if found is None:
        return None
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(found.data, dtype=np.uint64)])[found.offsets]
    return ByteLengths(
        packed=pack(np.diff(found.offsets), np.diff(sums)),
        control=found.control,
        prepends_space=found.prepends_space,
        openers=found.openers,
        normalization=Normalization(_added(found)) if found.normalizes else None,
        swallowed=_swallowed(found.swallowing),
    )


def _swallowed(tokens: tuple[str, ...]) -> re.Pattern[bytes] | None:
    if not tokens:
        return None
    space = b"|".join(re.escape(one.encode()) for one in SPACE)
    return re.compile(b"(?:" + b"|".join(re.escape(one.encode()) for one in tokens) + b")((?:" + space + b")+)")


def _added(found: TokenBytes) -> set[str]:
    """Return every added token."""
    raw, bounds = found.data.tobytes(), found.offsets.tolist()
    numbers = np.flatnonzero(found.control).tolist()
    return {raw[bounds[number] : bounds[number + 1]].decode() for number in numbers} - {""}
