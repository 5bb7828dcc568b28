"""Ids of calls of which more is known, under a template that measures or compares them.

Mistral's templates refuse calls whose ids do not have nine characters. What has such ids alone gets labels that say so.
Command A's write the number of the call that has the id of a result. Labels can say which ids are the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sft_shards.formats.columnar import ConversationColumns, Layout, prefix_sums, ranges, text_labels, utf8_buffers
from sft_shards.formats.layouts import ID_LABELS, ID_LENGTH, IDS_OF_LENGTH
from sft_shards.preprocess.pipeline.layout_skeletons import LayoutSkeletons


def with_known_lengths(
    skeletons: LayoutSkeletons,
    conversations: ConversationColumns,
    records: NDArray[np.int64],
    bounds: NDArray[np.int64],
) -> tuple[ConversationColumns, NDArray[np.int64]]:
    """Return conversations with such labels where they have no skeleton else, and the skeletons of all.

    Args:
        records: int64[n], the record number of each.
        bounds: int64[n, 2], as `LayoutSkeletons.bounds` gives them.
    """
    renamed = [_renamed(layout) if skeletons.has_none(layout) else layout for layout in conversations.layouts]
    chosen = np.asarray([new != old for new, old in zip(renamed, conversations.layouts, strict=True)], dtype=bool)
    rows = np.flatnonzero(chosen[conversations.layout_ids])
    rows = rows[_all_of_length(conversations, rows)]
    if not len(rows):
        return conversations, bounds
    seen = {renamed[number] for number in np.unique(conversations.layout_ids[rows]).tolist()}
    ids = conversations.layout_ids.copy()
    ids[rows] += len(renamed)
    changed = replace(conversations, layouts=[*conversations.layouts, *renamed], layout_ids=ids)
    return changed, skeletons.bounds(changed, records, seen=seen)


def _renamed(layout: Layout) -> Layout:
    return tuple(IDS_OF_LENGTH.get(label, label) for label in layout)


def _all_of_length(conversations: ConversationColumns, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool[r]: whether all ids of some conversations, each of which has one, are `ID_LENGTH` bytes of ASCII."""
    if not len(rows):
        return np.zeros(0, dtype=bool)
    texts, counts = _ids(conversations, rows)
    values, offsets = utf8_buffers(conversations.texts)
    right = np.diff(offsets)[texts] == ID_LENGTH
    right[right] = (values[offsets[texts[right]][:, None] + np.arange(ID_LENGTH)] < 0x80).all(axis=1)
    return np.asarray(np.logical_and.reduceat(right, prefix_sums(counts)[:-1]))


def _ids(conversations: ConversationColumns, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the ids of some conversations among the texts, and int64[r], how many each has."""
    places = [[at for at, one in enumerate(text_labels(own)) if one in ID_LABELS] for own in conversations.layouts]
    flat = np.asarray([place for own in places for place in own], dtype=np.int64)
    counts = np.asarray(list(map(len, places)), dtype=np.int64)
    layouts = conversations.layout_ids[rows]
    each = counts[layouts]
    return flat[ranges(prefix_sums(counts)[layouts], each)] + np.repeat(conversations.text_offsets[rows], each), each


def with_ids_told_apart(
    skeletons: LayoutSkeletons,
    conversations: ConversationColumns,
    records: NDArray[np.int64],
    bounds: NDArray[np.int64],
) -> tuple[ConversationColumns, NDArray[np.int64]]:
    """Return conversations with labels that say which ids are the same, where they have no skeleton else, and `bounds`.

    Args:
        records, bounds: as for `with_known_lengths`.
    """
    if not skeletons.looked_into(ID_LABELS):
        return conversations, bounds
    chosen = [not ID_LABELS.isdisjoint(one) and skeletons.has_none(one) for one in conversations.layouts]
    rows = np.flatnonzero(np.asarray(chosen, dtype=bool)[conversations.layout_ids])
    if not len(rows):
        return conversations, bounds
    texts, counts = _ids(conversations, rows)
    found = iter(conversations.texts.take(pa.array(texts)).to_pylist())
    layouts, numbered = [*conversations.layouts], dict[Layout, int]()
    ids = conversations.layout_ids.copy()
    for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
        differ: dict[str, int] = {}
        numbers = tuple(differ.setdefault(text, len(differ)) for text in islice(found, count))
        layout = _numbered(layouts[ids[row]], numbers)
        if layout not in numbered:
            numbered[layout] = len(layouts)
            layouts.append(layout)
        ids[row] = numbered[layout]
    changed = replace(conversations, layouts=layouts, layout_ids=ids)
    return changed, skeletons.bounds(changed, records, seen=numbered.keys())


@lru_cache(maxsize=4096)
def _numbered(layout: Layout, numbers: tuple[int, ...]) -> Layout:
    """Return a layout with the number of each id in its label."""
    rest = iter(numbers)
    return tuple(f"{label}:{next(rest)}" if label in ID_LABELS else label for label in layout)
