"""Pack conversations into sequences by best-fit decreasing, over counts of lengths.

There are only N lengths and N amounts of free space in sequences of N positions, so conversations are not placed one
by one. Lengths are taken from long to short. For each, the packs with the least free space that still holds the length
take as many conversations as fit (a pack that has taken one has less free space than any other that fits, so best-fit
returns to it); then come the packs with the next larger free space. One numpy operation handles all packs with the same
free space. The work grows with the number of (length, free space) pairs that meet, not with the number of
conversations, and the packs are those of the textbook algorithm.

    capacity 10, lengths 6 6 4 3:  6 opens packs 0 and 1 (free 4, 4); 4 fills pack 0; 3 goes to pack 1 (free 1)

A random draw decides which conversation of a length takes a place of that length, and another one the order of the
packs: neither depends on where a conversation lies in the files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 1234
"""The trainer's seed where none is named: Megatron's own default."""


@dataclass(frozen=True, kw_only=True)
class Packs:
    """Packs of items in CSR form: pack p holds `items[bounds[p] : bounds[p + 1]]`.

    Packs (4, 7) and (5) are `items` 4 7 5 and `bounds` 0 2 3.
    """

    items: NDArray[np.uint32]
    """uint32[n]: item numbers, pack after pack."""
    bounds: NDArray[np.uint32]
    """uint32[packs + 1]: offsets into `items`, from 0 to n."""


def shuffled(count: int, *key: object) -> NDArray[np.uint32]:
    """Return a permutation of 0..count-1, uint32[count], that never changes for the same key.

    A run may be resumed with another numpy, and numpy keeps the results of `Generator.permutation` only within a
    release, but the raw stream of Philox for ever (NEP 19). So 64-bit keys are sorted: a random word in the high half,
    the number in the low half. Words 9 2 5 over the numbers 0 1 2 sort to the permutation 1 2 0.
    """
    words = random_words(count, *key)
    words &= np.uint64(0xFFFF_FFFF_0000_0000)
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    return words.astype(np.uint32)


def random_words(count: int, *key: object) -> NDArray[np.uint64]:
    """Return uint64[count] random words that depend on the key alone (on the text of its parts)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8")).random_raw(count)


def pack(lengths: NDArray[Any], capacity: int, *key: object) -> Packs:
    """Distribute items over packs of at most `capacity` positions each.

    Args:
        lengths: int[n], positions of each item, 1..capacity.
        capacity: positions in a pack.
        key: seeds the shuffling, see `random_words`.
    """
    count = len(lengths)
    if count == 0:
        return Packs(items=np.zeros(0, dtype=np.uint32), bounds=np.zeros(1, dtype=np.uint32))
    assert int(lengths.min()) >= 1
    assert int(lengths.max()) <= capacity
    bins, places = _best_fit(np.bincount(lengths, minlength=capacity + 1), capacity)
    # `places` lists packs by the length that goes there, longest first. Items are sorted the same way, in random order
    # among those of one length. Sorting distinct 64-bit keys is several times faster than an indirect sort. From high
    # to low bits they hold: capacity - length | random word | item number, and below: shuffled pack | place.
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
    """Return the number of packs, and the pack of each item, uint32[n], longest items first.

    Args:
        counts: int64[capacity + 1], number of items of each length.
        capacity: positions in a pack.
    """
    free = np.zeros(capacity + 1, dtype=np.int64)  # number of packs by their free space
    waiting: list[list[NDArray[np.uint32]]] = [[] for _ in range(capacity + 1)]  # which packs these are
    placed: list[NDArray[np.uint32]] = []
    opened = 0

    def put(packs: NDArray[np.uint32], space: int, length: int, each: int) -> None:
        """Give each of `packs`, which have `space` free, `each` items of `length`."""
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
