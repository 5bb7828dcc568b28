"""Best-fit decreasing over counts of lengths: which conversations share a sequence.

A sequence of N positions has few lengths and few amounts of free space, so conversations are not placed one by one.
Of the packs with the least free space that still holds length l, each takes as many of that length as fit (after one
it has less free space than any other that fits, so best-fit returns to it); then the packs with the next amount of
space. All packs with the same free space are handled by one numpy operation, and the work grows with the number of
(length, free space) pairs that meet, not with the number of conversations. The packs are those of the textbook
algorithm.

Which conversation of a length takes a place of that length is drawn, and so is the order of the packs: neither the
place in the epoch nor the company depends on the place in the files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Packs:
    """Packs of items in CSR form: pack p holds `items[bounds[p] : bounds[p + 1]]`."""

    items: NDArray[np.uint32]
    """uint32[n]: numbers of the items, pack after pack."""
    bounds: NDArray[np.uint32]
    """uint32[P + 1]."""


def shuffled(count: int, *key: object) -> NDArray[np.uint32]:
    """A permutation of 0..count-1, uint32[count], that is the same for ever for the same key.

    Random words of 32 bits are sorted together with the numbers they stand over. Only the raw stream of Philox and
    the sorting of distinct integers are relied on: numpy promises the first for ever, and what
    `Generator.permutation` gives only within a release (NEP 19), while a run may be resumed with another numpy.
    """
    words = random_words(count, *key)
    words &= np.uint64(0xFFFF_FFFF_0000_0000)
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    return words.astype(np.uint32)


def random_words(count: int, *key: object) -> NDArray[np.uint64]:
    """uint64[count] random words that depend on the key alone (its parts are compared as text)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8")).random_raw(count)


def pack(lengths: NDArray[Any], capacity: int, *key: object) -> Packs:
    """Distribute items over packs, each of at most `capacity`.

    Args:
        lengths: int[n], each 1..capacity.
        capacity: positions in a pack.
        key: seed of the shuffling, see `random_words`.
    """
    count = len(lengths)
    if count == 0:
        return Packs(items=np.zeros(0, dtype=np.uint32), bounds=np.zeros(1, dtype=np.uint32))
    assert int(lengths.min()) >= 1
    assert int(lengths.max()) <= capacity
    bins, places = _best_fit(np.bincount(lengths, minlength=capacity + 1), capacity)
    # Places are given out longest first, and so are the items, drawn among those of one length. Both orders are
    # sorts of distinct 64-bit keys, several times faster than indirect ones: from high to low bits
    # length | random | number, then pack | place.
    low, high = max(1, (count - 1).bit_length()), capacity.bit_length()
    keys = random_words(count, *key, "items")
    keys >>= np.uint64(high)
    keys &= np.uint64(~((1 << low) - 1) & (2**64 - 1))
    keys |= (capacity - lengths).astype(np.uint64) << np.uint64(64 - high)
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << low) - 1)
    longest_first = keys.astype(np.uint32)
    rank = shuffled(bins, *key, "packs")
    np.copyto(keys, rank[places])
    keys <<= np.uint64(32)
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    sizes = np.empty(bins, dtype=np.int64)
    sizes[rank] = np.bincount(places, minlength=bins)
    bounds = np.zeros(bins + 1, dtype=np.uint32)
    np.cumsum(sizes, out=bounds[1:])
    return Packs(items=longest_first[keys.astype(np.uint32)], bounds=bounds)


def _best_fit(counts: NDArray[np.int64], capacity: int) -> tuple[int, NDArray[np.uint32]]:
    """The number of packs, and the pack of each item, uint32[n], longest items first.

    Args:
        counts: int64[capacity + 1], items of each length.
    """
    free = np.zeros(capacity + 1, dtype=np.int64)  # packs with so much space
    waiting: list[list[NDArray[np.uint32]]] = [[] for _ in range(capacity + 1)]  # their numbers
    placed: list[NDArray[np.uint32]] = []
    opened = 0

    def put(packs: NDArray[np.uint32], space: int, length: int, each: int) -> None:
        """Give each of `packs` `each` items."""
        placed.append(packs if each == 1 else np.repeat(packs, each))
        left = space - each * length
        if left:
            waiting[left].append(packs)
            free[left] += len(packs)

    for length in np.flatnonzero(counts)[::-1].tolist():
        wanted = int(counts[length])
        for space in (np.flatnonzero(free[length:]) + length).tolist():
            chunks = waiting[space]
            packs = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
            each = space // length
            full, some = divmod(wanted, each)
            if full >= len(packs):
                full, some = len(packs), 0
            used = full + (some > 0)
            waiting[space] = [packs[used:]] if used < len(packs) else []
            free[space] -= used
            if full:
                put(packs[:full], space, length, each)
            if some:
                put(packs[full:used], space, length, some)
            wanted -= full * each + some
            if not wanted:
                break
        if wanted:
            each = capacity // length
            full, some = divmod(wanted, each)
            fresh = np.arange(opened, opened + full + (some > 0), dtype=np.uint32)
            opened += len(fresh)
            if full:
                put(fresh[:full], capacity, length, each)
            if some:
                put(fresh[full:], capacity, length, some)
    return opened, np.concatenate(placed)
