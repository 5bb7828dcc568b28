"""Texts that normalization form C leaves as they are, found without normalizing them.

A tokenizer that brings texts to NFC first gives such a text the ids that it would have without that step. What is
known of a character holds for all versions of Unicode that know it (its stability policy), so a text with one that
Python's tables do not know yet is none of them.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FORM: Literal["NFC"] = "NFC"
INERT, DOUBTFUL, UNKNOWN = range(3)
"""Of a character: it composes with nothing and stays; it may not; nothing is known of it."""
MANY = 0xC0
"""Bytes from here on begin a character of several bytes."""
NEAR = range(1, 5)
"""How far apart two first bytes of characters may be to be of one range."""
PICTURES = range(0x1F000, 0x1FC00)
"""Beyond the basic plane, the blocks in which nothing composes."""


def unsettled(values: NDArray[np.uint8], ends: NDArray[np.int32]) -> NDArray[np.int64]:
    """Which of several texts NFC would change, or might change where something stands before them.

    Args:
        values: u8[B], the texts in UTF-8, one after the other.
        ends: int32[n + 1], where each begins in them, with the end of the last.
    """
    places, _ = _doubts(values)
    doubted = np.unique(np.searchsorted(ends, places, side="right") - 1)
    found = [at for at in doubted.tolist() if not _is_settled(values[ends[at] : ends[at + 1]])]
    return np.asarray(found, dtype=np.int64)


def is_inert(text: str) -> bool:
    """Whether NFC changes nothing in a text nor where it touches others: no character of it composes with any."""
    return text.isascii() or not len(_doubts(np.frombuffer(text.encode(), dtype=np.uint8))[0])


def settled(text: str) -> str:
    """A text in NFC, without the characters that are not known."""
    return unicodedata.normalize(FORM, "".join([one for one in text if unicodedata.category(one) != "Cn"]))


def _is_settled(values: NDArray[np.uint8]) -> bool:
    places, kinds = _doubts(values)
    text = values.tobytes().decode()
    if places[0] == 0 or (UNKNOWN in kinds and "Cn" in set(map(unicodedata.category, set(text)))):
        return False
    return unicodedata.is_normalized(FORM, text)


def _doubts(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The characters of a text in UTF-8 that are not inert: int64[d] where each begins, u8[d] its kind."""
    looked = np.zeros(len(values), dtype=bool)
    for low, high in _leads():
        looked |= (values - low) <= high - low
    places = np.flatnonzero(looked)
    leads = values[places]
    after = [values[np.minimum(places + step, max(len(values) - 1, 0))] & np.uint8(0x3F) for step in (1, 2, 3)]
    second, third, fourth = (each.astype(np.uint32) for each in after)
    points = ((leads & np.uint32(0x1F)) << 6) | second
    three = leads >= 0xE0
    points[three] = (((leads & np.uint32(0x0F)) << 12) | (second << 6) | third)[three]
    four = leads >= 0xF0
    points[four] = (((leads & np.uint32(0x07)) << 18) | (second << 12) | (third << 6) | fourth)[four]
    kinds = _table()[np.minimum(points, len(_table()) - 1)]
    doubted = kinds != INERT
    return places[doubted], kinds[doubted]


@lru_cache(maxsize=1)
def _leads() -> list[tuple[np.uint8, np.uint8]]:
    """First bytes of characters of which some are not inert, as ranges; a few more cost less than one more range."""
    kinds = _table()
    odd = [lead for lead in range(MANY, 0xE0) if kinds[(lead & 0x1F) << 6 : ((lead & 0x1F) + 1) << 6].any()]
    odd += [lead for lead in range(0xE0, 0xF0) if kinds[(lead & 0x0F) << 12 : ((lead & 0x0F) + 1) << 12].any()]
    odd += range(0xF0, 0x100)
    begins = [lead for lead in odd if not {lead - step for step in NEAR} & {*odd}]
    ends = [lead for lead in odd if not {lead + step for step in NEAR} & {*odd}]
    return [(np.uint8(begin), np.uint8(end)) for begin, end in zip(begins, ends, strict=True)]


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """u8[PICTURES.stop + 1]: the kinds of all characters up to there, the last for those beyond."""
    kinds = np.full(PICTURES.stop + 1, INERT, dtype=np.uint8)
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
    kinds[1 << 16 : PICTURES.start] = kinds[-1] = UNKNOWN
    return kinds
