"""Texts that normalization form C leaves as they are, found without normalizing them.

A tokenizer that brings texts to NFC first gives such a text the ids that it would have without that step. What is
known of a character holds for all versions of Unicode that know it (its stability policy), so a text with one that
Python's tables do not know yet is none of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FORM: Literal["NFC"] = "NFC"
INERT, DOUBTFUL, UNKNOWN = range(3)
"""Of a character: it composes with nothing and stays; it may not; nothing is known of it, or it takes two units."""


def unsettled(texts: list[str]) -> Iterator[int]:
    """Which of several texts NFC would change, or might change where something stands before them."""
    wide = [at for at, text in enumerate(texts) if not text.isascii()]
    hits = np.flatnonzero(_kinds("".join([texts[at] for at in wide])))
    if not len(hits):
        return
    ends = np.cumsum([len(texts[at].encode("utf-16-le")) // 2 for at in wide])
    for number in np.unique(np.searchsorted(ends, hits, side="right")).tolist():
        if not _is_settled(texts[wide[number]]):
            yield wide[number]


def is_inert(text: str) -> bool:
    """Whether NFC changes nothing in a text nor where it touches others: no character of it composes with any."""
    return text.isascii() or not _kinds(text).any()


def settled(text: str) -> str:
    """A text in NFC, without the characters that are not known."""
    return unicodedata.normalize(FORM, "".join([one for one in text if unicodedata.category(one) != "Cn"]))


def _is_settled(text: str) -> bool:
    kinds = _kinds(text)
    if kinds[0] != INERT or (UNKNOWN in kinds and "Cn" in set(map(unicodedata.category, set(text)))):
        return False
    return unicodedata.is_normalized(FORM, text)


def _kinds(text: str) -> NDArray[np.uint8]:
    """u8[units]: the kind of each unit of a text's UTF-16."""
    return np.take(_table(), np.frombuffer(text.encode("utf-16-le"), dtype="<u2"))


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """u8[65536]: the kinds of all units of UTF-16. A character beyond the basic plane is unknown by its first unit,
    but for the blocks of pictures, in which nothing composes."""
    kinds = np.full(1 << 16, INERT, dtype=np.uint8)
    kinds[0x1100:0x1200] = DOUBTFUL
    for point in range(1 << 16):
        character = chr(point)
        if unicodedata.category(character) in ("Cn", "Cs"):
            kinds[point] = UNKNOWN
        elif unicodedata.combining(character):
            kinds[point] = DOUBTFUL
        elif (parts := unicodedata.decomposition(character)) and parts[0] != "<":
            if not unicodedata.is_normalized(FORM, character):
                kinds[point] = DOUBTFUL
            for second in parts.split()[1:]:
                kinds[int(second, 16)] = DOUBTFUL
    kinds[0xD83C:0xD83F] = kinds[0xDC00:0xE000] = INERT
    return kinds
