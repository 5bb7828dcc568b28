"""Tools on offer as constants of a layout, under a template that looks into them.

    before   labels  offer={"name": "\\0text"}  text    user    assistant      texts  "search"  "Hi"  "Yo"
    after    labels  offer={"name": "search"}          user    assistant      texts  "Hi"  "Yo"

A template that writes the parameters of a tool as types of TypeScript, or as XML, cannot be traced with values of which
nothing is known. With the tools themselves it can, and the skeleton holds for all records that offer the same ones: in
most data these are thousands. Since a skeleton costs as much as two conversations, it is made when the same tools come
in the same layout a second time. The records are told apart by the bytes of their tools, one slice of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array
from sft_shards.formats.columnar import ConversationColumns, Layout, ranges, text_labels, utf8_buffers
from sft_shards.formats.layouts import OFFER, json_text, offers_of, put_together
from sft_shards.formats.templates.sentinels import RESERVED, all_texts, any_of
from sft_shards.preprocess.pipeline.layout_skeletons import MOST_SEEN, MOST_SKELETONS, LayoutSkeletons

LONGEST_TOOLS = 1 << 20
"""Bytes of the texts of all tools of a conversation up to which they become constants."""
MOST_BYTES = 1 << 25
"""Bytes of tools that become constants, those of each layout counted."""
MOST_LAYOUTS = MOST_SKELETONS // 2
"""Layouts with constant tools, so that there is room for others."""
MOST_FAILURES = 3
"""Tools with which a layout has no skeleton, after which it is not tried with others, if it had one with none."""
Key = tuple[Layout, bytes]
"""A layout, and the texts of its tools: first their lengths in bytes, int32, then their bytes."""


class ConstantTools:
    """The layouts with constant tools that were met so far.

    Args:
        skeletons: makes their skeletons.
    """

    def __init__(self, skeletons: LayoutSkeletons) -> None:
        self._skeletons = skeletons
        self._layouts: dict[Key, Layout | None] = {}
        """The layout with constants; None where it has no skeleton."""
        self._labels: dict[Key, Layout | None] = {}
        """The labels of tools alone, for those of their offers; None where the tools hold what no text may."""
        self._seen_in: dict[int, int] = {}
        """For the hash of a key, the number of the record in which it was seen first."""
        self._bytes = 0
        self._failures: Counter[Layout] = Counter()
        """For each layout, with how many tools it has no skeleton."""
        self._helped: set[Layout] = set()
        """Layouts that have a skeleton with some tools."""

    def bounds(
        self, conversations: ConversationColumns, records: NDArray[np.int64], bounds: NDArray[np.int64]
    ) -> tuple[ConversationColumns, NDArray[np.int64]]:
        """Return conversations, with constant tools where they have no skeleton else, and the skeletons of all.

        Args:
            records: int64[n], the record number of each.
            bounds: int64[n, 2], as `LayoutSkeletons.bounds` gives them.
        """
        wanted = [number for number, layout in enumerate(conversations.layouts) if self._may_help(layout)]
        if not wanted:
            return conversations, bounds
        rows = np.flatnonzero((bounds[:, 1] == bounds[:, 0]) & np.isin(conversations.layout_ids, wanted))
        sizes = np.diff(utf8_buffers(conversations.texts)[1][_spans(conversations, rows)], axis=1)[:, 0]
        rows = rows[sizes <= LONGEST_TOOLS]
        if not len(rows):
            return conversations, bounds
        keys = _keys(conversations, rows)
        seen = [self._is_seen_again(key, record) for key, record in zip(keys, records[rows].tolist(), strict=True)]
        new = {key for key, again in zip(keys, seen, strict=True) if again} - self._layouts.keys()
        for key in sorted(new):
            if len(self._layouts) < MOST_LAYOUTS and self._bytes < MOST_BYTES:
                self._layouts[key] = self._with_constants(key)
                self._bytes += len(key[1])
        found = [self._layouts.get(key) for key in keys]
        if not any(found):
            return conversations, bounds
        changed = _changed(conversations, rows, found)
        bounds = self._skeletons.bounds(changed, records, seen={one for one in found if one})
        self._judge({key: start < end for key, (start, end) in zip(keys, bounds[rows].tolist(), strict=True)}, new)
        return changed, bounds

    def _may_help(self, layout: Layout) -> bool:
        """Return whether a layout may have a skeleton with constant tools. A long one was perhaps not tried without."""
        if not (self._helped or self._skeletons.has_none(layout)) or not text_labels(offers_of(layout)):
            return False
        return layout in self._helped or self._failures[layout] < MOST_FAILURES

    def _is_seen_again(self, key: Key, record: int) -> bool:
        """Return whether a key was seen in another record, and note that it is seen."""
        if len(self._seen_in) > MOST_SEEN:
            self._seen_in.clear()
        return key in self._layouts or self._seen_in.setdefault(hash(key), record) != record

    def _with_constants(self, key: Key) -> Layout | None:
        """Return a layout with its tools as constants; None where they hold what no text may."""
        layout, texts = key
        offers = offers_of(layout)
        if (offers, texts) not in self._labels:
            _, tools = put_together(offers, _unpacked(texts, len(text_labels(offers))))
            self._labels[offers, texts] = self._constants(tools)
        labels = self._labels[offers, texts]
        return labels and (*labels, *layout[len(offers) :])

    def _constants(self, tools: list[dict[str, Any]]) -> Layout | None:
        words, labels = all_texts(tools), tuple(OFFER + json_text(tool) for tool in tools)
        typed = any_of(sorted(self._skeletons.typed))
        holds_leaves = any("\\u0000" in label for label in labels)
        return None if holds_leaves or RESERVED.search(words) or typed.search(words) else labels

    def _judge(self, made: dict[Key, bool], new: set[Key]) -> None:
        """Note which of the new layouts have a skeleton."""
        for key in new & made.keys():
            if made[key]:
                self._helped.add(key[0])
            elif self._layouts.get(key) is not None:
                self._layouts[key] = None
                self._failures[key[0]] += 1


def _spans(conversations: ConversationColumns, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64[r, 2]: the texts of the tools of some conversations, [first, end)."""
    counts = np.asarray([len(text_labels(offers_of(one))) for one in conversations.layouts], dtype=np.int64)
    firsts = conversations.text_offsets[rows]
    return np.stack([firsts, firsts + counts[conversations.layout_ids[rows]]], axis=1)


def _keys(conversations: ConversationColumns, rows: NDArray[np.int64]) -> list[Key]:
    values, offsets = utf8_buffers(conversations.texts)
    contents, lengths = memoryview(values), np.diff(offsets).astype(np.int32)
    spans = _spans(conversations, rows)
    packed = [
        lengths[first:end].tobytes() + contents[begin:stop]
        for (first, end), (begin, stop) in zip(spans.tolist(), offsets[spans].tolist(), strict=True)
    ]
    layouts = [conversations.layouts[number] for number in conversations.layout_ids[rows].tolist()]
    return list(zip(layouts, packed, strict=True))


def _unpacked(packed: bytes, count: int) -> list[str]:
    """Return the texts of tools in a key. The texts "ab" and "é" are 2, 2, as int32, and 4 bytes."""
    ends = 4 * count + np.cumsum(np.frombuffer(packed, dtype=np.int32, count=count))
    return [packed[begin:end].decode() for begin, end in pairwise([4 * count, *ends.tolist()])]


def _changed(
    conversations: ConversationColumns, rows: NDArray[np.int64], layouts: Sequence[Layout | None]
) -> ConversationColumns:
    """Return conversations with other layouts, which do not have the texts of tools, in some rows.

    Args:
        layouts: that of each row; None where it stays.
    """
    rows = rows[[layout is not None for layout in layouts]]
    spans = _spans(conversations, rows)
    keep = np.ones(len(conversations.texts), dtype=bool)
    keep[ranges(spans[:, 0], spans[:, 1] - spans[:, 0])] = False
    numbers: dict[Layout, int] = {}
    own = [numbers.setdefault(layout, len(numbers)) for layout in layouts if layout is not None]
    ids = conversations.layout_ids.copy()
    ids[rows] = np.asarray(own, dtype=np.int64) + len(conversations.layouts)
    return replace(
        conversations,
        layouts=[*conversations.layouts, *numbers],
        layout_ids=ids,
        texts=conversations.texts.filter(bool_array(keep)),
    )
