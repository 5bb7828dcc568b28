"""Look at the first and the last characters of many texts at once, for white space.

Texts are UTF-8 in flat arrays. Two bytes are enough to rule most characters out, so a table of all pairs of bytes
clears nearly every text without decoding it. A third byte clears what is left: "。", with which most Chinese texts end,
is E3 80 82, and U+2002 is E2 80 82.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WHITE_SPACE = "".join([chr(point) for point in range(0x3001) if chr(point).isspace()])
"""All white space that Unicode knows."""
ASCII_SPACE = "".join(character for character in WHITE_SPACE if character.isascii()).encode()
_OTHERS = [character.encode() for character in WHITE_SPACE if not character.isascii()]
_FIRST, _LAST = {one[:2] for one in _OTHERS}, {one[-2:] for one in _OTHERS}
"""The first two and the last two bytes of all other white space."""
_TRIPLES = [int.from_bytes(one, "big") for one in _OTHERS if len(one) == 3]


def are_blank(values: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return bool[t]: the texts that are empty or hold nothing but white space.

    Args:
        values: u8[B], the texts in UTF-8, one after the other.
        offsets: int32[t + 1], where each begins in them, with the end of the last.
    """
    blank = np.asarray(np.diff(offsets) == 0)
    for row in np.flatnonzero(may_begin_with_space(values, offsets)).tolist():
        blank[row] |= not values[offsets[row] : offsets[row + 1]].tobytes().decode().strip()
    return blank


def may_begin_with_space(values: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return bool[t]: the texts that may begin with white space; some others are among them. Arguments as above."""
    found = _pair_tables()[0][_pairs(values, offsets[:-1], offsets[:-1] + 1)]
    return _with_third_byte(found, values, offsets[:-1])


def may_end_with_space(values: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return bool[t]: the texts that may end with white space; some others are among them. Arguments as above."""
    found = _pair_tables()[1][_pairs(values, offsets[1:] - 2, offsets[1:] - 1)]
    return _with_third_byte(found, values, offsets[1:] - 3)


def _with_third_byte(
    found: NDArray[np.bool_], values: NDArray[np.uint8], places: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Return `found` without texts whose three bytes share two with white space of three bytes, and are none.

    Args:
        places: int32[t], where the three bytes of each text begin.
    """
    rows = np.flatnonzero(found)
    if not len(rows):
        return found
    first, second, third = (values[np.clip(places[rows] + at, 0, len(values) - 1)].astype(np.uint32) for at in range(3))
    doubtful = (second == 0x80) & (first >= 0xE0) & (third >= 0x80)
    found[rows[doubtful & ~np.isin(first << 16 | second << 8 | third, _TRIPLES)]] = False
    return found


def stripped(text: bytes, *, left: bool, right: bool) -> bytes:
    """Return a text in UTF-8 without the white space at its ends, as `str.lstrip` and `str.rstrip` take it off.

    ASCII needs no decoding: " ï\n" is 20 C3 AF 0A, and C3 AF are neither the first nor the last bytes of white space.
    """
    text = text.lstrip(ASCII_SPACE) if left else text
    text = text.rstrip(ASCII_SPACE) if right else text
    if (left and text[:2] in _FIRST) or (right and text[-2:] in _LAST):
        decoded = text.decode()
        decoded = decoded.lstrip() if left else decoded
        return (decoded.rstrip() if right else decoded).encode()
    return text


@lru_cache(maxsize=1)
def _pair_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return bool[65536] twice: first two bytes of texts that may begin with white space, last two of such that may end
    with it. U+00A0 is C2 A0, so the first table is true at 0xC2A0; a tab, 09, makes it true at 0x0900 to 0x09FF."""
    encoded = [character.encode() for character in WHITE_SPACE]
    first, last = np.zeros((256, 256), dtype=bool), np.zeros((256, 256), dtype=bool)
    for one in encoded:
        first[one[0], one[1] if len(one) > 1 else slice(None)] = True
        last[one[-2] if len(one) > 1 else slice(None), one[-1]] = True
    return first.reshape(-1), last.reshape(-1)


def _pairs(values: NDArray[np.uint8], first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Return uint16[t]: the bytes at two places of each text as one number."""
    if not len(values):
        return np.zeros(len(first), dtype=np.uint16)
    high, low = (values[np.clip(places, 0, len(values) - 1)].astype(np.uint16) for places in (first, second))
    return np.asarray(high << 8 | low)
