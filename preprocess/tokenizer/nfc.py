"""Normalization form C of many texts at once, by looking only at the few characters that it may change.

A tokenizer that brings texts to NFC first gives a text in NFC the ids that it would have without that step, so the step
can be left out where the text is normalized here. What is known of a character holds for all versions of Unicode that
know it (Unicode's stability policy); a character that Python's tables do not know yet is left to the tokenizer.

It works on UTF-8 in flat arrays: most texts are cleared by looking at the first bytes of their characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FORM: Literal["NFC"] = "NFC"
INERT, DOUBTFUL, UNKNOWN = range(3)
"""Of a character: NFC never changes it nor anything beside it; NFC may; nothing is known of it."""
FIRST_LEAD_BYTE = 0xC0
"""From here on, a byte begins a character of several bytes."""
MERGED_GAPS = range(1, 5)
"""Lead bytes that are no further apart than this are put into one range."""
SYLLABLES = (range(0x3400, 0x4DB6), range(0x4E00, 0x9FA6), range(0xAC00, 0xD7A4), range(0xE000, 0xF900))
"""In the basic plane, large blocks in which every character is inert: Han, Hangul, private use."""
PICTURES = range(0x1F000, 0x1FC00)
"""Beyond the basic plane, the blocks in which every character is inert."""
MOST_KNOWN = 1 << 16
"""Clusters whose normal form is remembered."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Runs of characters that are not inert, each with the inert character in front of it, in texts in UTF-8.

    A text is normalized by normalizing each of its clusters by itself: nothing composes across the border before an
    inert character. "cafe" + U+0301 + "s" has one cluster, "e" + U+0301.
    """

    begins: NDArray[np.int64]
    """int64[c], rising: the byte at which each begins; where the run begins its text, it has no character in front."""
    ends: NDArray[np.int64]
    """int64[c]: the byte behind each."""
    known: NDArray[np.bool_]
    """bool[c]: whether Python's tables certainly know all of its characters."""


def find_clusters(values: NDArray[np.uint8], offsets: NDArray[np.int32] | NDArray[np.int64]) -> Clusters:
    """Return the clusters of several texts, none of which spans two.

    Args:
        values: u8[B], the texts in UTF-8, one after the other.
        offsets: int[n + 1], where each begins in them, with the end of the last.
    """
    places, classes = _not_inert(values)
    if not len(places):
        return Clusters(begins=places, ends=places, known=np.zeros(0, dtype=bool))
    leads = values[places]
    ends = places + 1 + (leads >= FIRST_LEAD_BYTE) + (leads >= 0xE0) + (leads >= 0xF0)
    starts_text = np.isin(places, offsets)
    starts_run = np.concatenate([[True], places[1:] != ends[:-1]]) | starts_text
    known = np.logical_and.reduceat(classes != UNKNOWN, np.flatnonzero(starts_run))
    begins, ends = places[starts_run], ends[np.append(starts_run[1:], True)]
    bare = starts_text[starts_run]
    for _ in range(4):  # a character has at most four bytes
        before = begins - 1
        begins = np.where(bare, begins, before)
        bare = bare | ((values[begins] & 0xC0) != 0x80)
    return Clusters(begins=begins, ends=ends, known=known)


class Normalization:
    """Normalizes clusters as `tokenizers` does, which cuts texts at added tokens before.

    Args:
        tokens: every added token.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        self._characters = {character for token in tokens for character in token}
        self._last = {token[-1] for token in tokens}
        self._can = all(map(is_inert, self._characters))
        self._known: dict[bytes, bytes | None] = {}

    def normalize(self, cluster: bytes) -> bytes | None:
        """Return a cluster in NFC; None where that depends on more than the cluster.

        It does where an added token may end in the cluster or come into being there, and where a character is so new
        that not all tables know it.
        """
        if cluster not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[cluster] = self._normalize(cluster.decode())
        return self._known[cluster]

    def _normalize(self, cluster: str) -> bytes | None:
        got = _nfc()(cluster)
        unknown = "Cn" in set(map(unicodedata.category, cluster))
        if unknown or got != unicodedata.normalize(FORM, cluster):
            return None
        if got != cluster:
            base_changes = got[0] != cluster[0]
            made = self._characters & {*(got if base_changes else got[1:])}
            if made or not self._can or (base_changes and cluster[0] in self._last):
                return None
        return got.encode()


@lru_cache(maxsize=1)
def _nfc() -> Callable[[str], str]:
    from tokenizers.normalizers import NFC

    normalize: Callable[[str], str] = NFC().normalize_str
    return normalize


def is_inert(text: str) -> bool:
    """Return whether NFC changes nothing in a text nor where it touches others: no character of it composes."""
    return text.isascii() or not len(_not_inert(np.frombuffer(text.encode(), dtype=np.uint8))[0])


def normalize_known(text: str) -> str:
    """Return a text in NFC, without the characters that Python's tables do not know."""
    return unicodedata.normalize(FORM, "".join([one for one in text if unicodedata.category(one) != "Cn"]))


def _not_inert(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the characters of a text in UTF-8 that are not inert: int64[d] where each begins, u8[d] its class.

    "ae" + U+0301 is the bytes 61 65 CC 81. Only CC is a lead byte that inert characters do not have for themselves; at
    place 2, CC and 81 decode to U+0301, which is `DOUBTFUL`: ([2], [DOUBTFUL]).
    """
    if not len(values) or values.max() < FIRST_LEAD_BYTE:  # ASCII alone, which needs no tables
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    candidate = np.zeros(len(values), dtype=bool)
    for low, high in _lead_byte_ranges():
        candidate |= (values - low) <= high - low  # unsigned: a byte below `low` becomes a large one
    places = np.flatnonzero(candidate)
    leads = values[places]
    after = [values[np.minimum(places + step, max(len(values) - 1, 0))] & np.uint8(0x3F) for step in (1, 2, 3)]
    second, third, fourth = (each.astype(np.uint32) for each in after)
    points = ((leads & np.uint32(0x1F)) << 6) | second
    three = leads >= 0xE0
    points[three] = (((leads & np.uint32(0x0F)) << 12) | (second << 6) | third)[three]
    four = leads >= 0xF0
    points[four] = (((leads & np.uint32(0x07)) << 18) | (second << 12) | (third << 6) | fourth)[four]
    classes = _classes()[np.minimum(points, len(_classes()) - 1)]
    found = classes != INERT
    return places[found], classes[found]


@lru_cache(maxsize=1)
def _lead_byte_ranges() -> list[tuple[np.uint8, np.uint8]]:
    """Return the lead bytes of characters of which some are not inert, as inclusive ranges.

    Ranges take in a few bytes too many: looking those up costs less than comparing with one more range.
    """
    classes = _classes()
    leads = [
        lead for lead in range(FIRST_LEAD_BYTE, 0xE0) if classes[(lead & 0x1F) << 6 : ((lead & 0x1F) + 1) << 6].any()
    ]
    leads += [lead for lead in range(0xE0, 0xF0) if classes[(lead & 0x0F) << 12 : ((lead & 0x0F) + 1) << 12].any()]
    leads += range(0xF0, 0x100)
    begins = [lead for lead in leads if not {lead - step for step in MERGED_GAPS} & {*leads}]
    ends = [lead for lead in leads if not {lead + step for step in MERGED_GAPS} & {*leads}]
    return [(np.uint8(begin), np.uint8(end)) for begin, end in zip(begins, ends, strict=True)]


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.uint8]:
    """Return u8[PICTURES.stop + 1]: the class of each character up to there, and last the one of those beyond."""
    classes = np.full(PICTURES.stop + 1, INERT, dtype=np.uint8)
    classes[0x1100:0x1200] = DOUBTFUL
    inert = {point for block in SYLLABLES for point in block}
    for point in (point for point in range(1 << 16) if point not in inert):
        character = chr(point)
        if unicodedata.category(character) in ("Cn", "Cs"):
            classes[point] = UNKNOWN
        elif unicodedata.combining(character):
            classes[point] = DOUBTFUL
        elif (parts := unicodedata.decomposition(character)) and parts[0] != "<":
            if not unicodedata.is_normalized(FORM, character):
                classes[point] = DOUBTFUL
            for second in parts.split()[1:]:
                classes[int(second, 16)] = DOUBTFUL
    classes[1 << 16 : PICTURES.start] = classes[-1] = UNKNOWN
    return classes
