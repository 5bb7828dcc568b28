"""Think blocks in columns: the contents that begin with one are taken apart, all conversations of a batch at once.

What becomes of a content is what `formats.layouts.take_thoughts_apart` makes of it. In most, the tags are where they
should be, with no white space but that of ASCII beside them, and so all borders follow from the places of the tags in
the bytes of the batch. Conversations with any other content that holds a tag are taken apart one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import (
    ConversationColumns,
    Layout,
    has_text,
    prefix_sums,
    utf8_buffers,
)
from sft_shards.formats.conversation import ROLES
from sft_shards.formats.layouts import LONGEST_CONSTANT, MOST_LABELS, take_thoughts_apart
from sft_shards.formats.records.arrow_columns import slice_texts
from sft_shards.preprocess.pipeline.batch import merge_columns
from sft_shards.preprocess.pipeline.whitespace import ASCII_SPACE, may_begin_with_space, may_end_with_space

THINK = b"think>"
"""What each think tag ends with; the opening one begins with `<`, the closing one with `</`."""
SPACE = np.isin(np.arange(256), list(ASCII_SPACE))
"""bool[256]: white space of ASCII."""
_Words = tuple[bytes, bytes, bool]
"""Of a think block: the words in front of the thought, those in front of the answer, and whether there is a thought."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocks:
    """The contents that begin with one think block; all arrays are int64[b]."""

    texts: NDArray[np.int64]
    """The position of each among the texts, rising."""
    begins: NDArray[np.int64]
    """The byte at which the thought begins, behind the tag and white space."""
    ends: NDArray[np.int64]
    """The byte behind the thought, in front of white space and the tag; `begins` where there is no thought."""
    answers: NDArray[np.int64]
    """The byte at which the answer begins."""


def take_think_blocks_apart(conversations: ConversationColumns) -> ConversationColumns:
    """Return conversations with their think blocks in the layouts; those that have no such layout stay as they are."""
    values, offsets = utf8_buffers(conversations.texts)
    tags = _places(values)
    if not len(tags):
        return conversations
    owners = np.searchsorted(offsets, tags, side="right") - 1
    roles = conversations.by_label(lambda label: label if label in ROLES else "")
    contents = (tags + len(THINK) <= offsets[owners + 1]) & (roles[owners] != "")  # else it stands across two texts
    tags, owners = tags[contents], owners[contents]
    blocks = _find(values, offsets, tags, owners, roles[owners] == "assistant")
    bounds = conversations.text_offsets
    others = np.setdiff1d(owners, blocks.texts)
    taken = _taken_apart(conversations, blocks)
    difficult = np.asarray([len(layout) > MOST_LABELS for layout in taken.layouts], dtype=bool)[taken.layout_ids]
    difficult[np.searchsorted(bounds, others, side="right") - 1] = True
    if not difficult.any():
        return taken
    return merge_columns([taken.filter(~difficult), _one_by_one(conversations.filter(difficult))])


def _places(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return int64[k], the bytes at which `THINK` stands; it is found by its last byte, which is a rare one."""
    places = np.flatnonzero(values[len(THINK) - 1 :] == THINK[-1])
    for at, byte in enumerate(THINK[:-1]):
        places = places[values[places + at] == byte]
    return places


def _find(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    tags: NDArray[np.int64],
    owners: NDArray[np.int64],
    assistants: NDArray[np.bool_],
) -> _Blocks:
    """Return the blocks whose borders are known.

    The text "<think>\\nhm\\n</think>\\n\\nyes" has tags at 1 and 13: its thought is [8, 10), its answer begins at 21.

    Args:
        tags: int64[k], rising: where `THINK` stands in contents.
        owners: int64[k]: the text that each is in.
        assistants: bool[k]: whether that is an assistant's.
    """
    texts, firsts, counts = np.unique(owners, return_index=True, return_counts=True)
    begins, limits = offsets[texts].astype(np.int64), offsets[texts + 1].astype(np.int64)
    first, last = tags[firsts], tags[firsts + counts - 1]
    closing = last - len("</")
    ends_so = (closing >= begins) & (values[closing] == ord("<")) & (values[closing + 1] == ord("/"))
    closing = np.maximum(closing, begins)
    head = _past_space(values, begins, closing)
    opened = (counts == 2) & (first == head + len("<")) & (values[head] == ord("<"))
    thoughts = _past_space(values, np.where(opened, first + len(THINK), head), closing)
    ends = _past_space(values, closing, thoughts, step=-1)
    answers = _past_space(values, last + len(THINK), limits)
    constants = thoughts - begins + answers - ends
    known = assistants[firsts] & ends_so & (opened | (counts == 1)) & (answers < limits)
    known &= constants <= LONGEST_CONSTANT
    known &= ~_may_have_space(values, thoughts, ends, at_end=True) & ~_may_have_space(values, answers, limits)
    return _Blocks(texts=texts[known], begins=thoughts[known], ends=ends[known], answers=answers[known])


def _past_space(
    values: NDArray[np.uint8], borders: NDArray[np.int64], limits: NDArray[np.int64], *, step: int = 1
) -> NDArray[np.int64]:
    """Return borders between bytes, int64[b], moved past white space of ASCII, as far as a label may hold it.

    Args:
        limits: int64[b], where they stop.
        step: 1 to the right, -1 to the left.
    """
    places = borders.copy()
    for _ in range(LONGEST_CONSTANT + 1):
        spaced = (limits - places) * step > 0
        spaced[spaced] = SPACE[values[places[spaced] + min(step, 0)]]
        if not spaced.any():
            break
        places[spaced] += step
    return places


def _may_have_space(
    values: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64], *, at_end: bool = False
) -> NDArray[np.bool_]:
    """Return bool[b]: the spans that are not empty and may begin, or end, with white space beyond ASCII's."""
    if not len(begins):
        return np.zeros(0, dtype=bool)
    borders = np.stack([begins, ends], axis=1).astype(np.int32).reshape(-1)
    spaced = may_begin_with_space(values, borders)[::2]
    if at_end:
        spaced |= may_end_with_space(values, borders)[::2]
    return np.asarray(spaced & (begins < ends))


def _taken_apart(conversations: ConversationColumns, blocks: _Blocks) -> ConversationColumns:
    """Return conversations with some blocks taken apart."""
    values, offsets = utf8_buffers(conversations.texts)
    with_thought = blocks.begins < blocks.ends
    starts, ends = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
    words_begin = starts[blocks.texts]
    starts[blocks.texts] = blocks.answers
    thinking = blocks.texts[with_thought]
    texts = slice_texts(
        values,
        np.insert(starts, thinking, blocks.begins[with_thought]),
        np.insert(ends, thinking, blocks.ends[with_thought]),
    )
    raw = values.tobytes()
    known: dict[_Words, int] = {}
    words = [
        known.setdefault((raw[begin:thought], raw[end:answer], thinks), len(known))
        for begin, thought, end, answer, thinks in zip(
            *(one.tolist() for one in (words_begin, blocks.begins, blocks.ends, blocks.answers, with_thought)),
            strict=True,
        )
    ]
    layouts, layout_ids = _layouts(conversations, blocks.texts, np.asarray(words, dtype=np.int64), list(known))
    return ConversationColumns(rows=conversations.rows, layouts=layouts, layout_ids=layout_ids, texts=texts)


def _layouts(
    conversations: ConversationColumns, texts: NDArray[np.int64], numbers: NDArray[np.int64], words: Sequence[_Words]
) -> tuple[list[Layout], NDArray[np.int64]]:
    """Return the layouts of conversations with blocks, and which each conversation has, int64[n].

    Args:
        texts: int64[b], the positions of the blocks among the texts.
        numbers: int64[b], the position of each block's words in `words`.
    """
    bounds = conversations.text_offsets
    rows = np.searchsorted(bounds, texts, side="right") - 1
    blocks = (texts - bounds[rows]) * len(words) + numbers  # each as one number: where it is, and its words
    firsts = prefix_sums(np.bincount(rows, minlength=len(conversations.rows)))
    counts = np.diff(firsts)
    single = np.full(len(counts), -1)
    single[counts == 1] = blocks[firsts[:-1][counts == 1]]
    size = int(single.max(initial=0)) + 2
    kinds, layout_ids = np.unique(conversations.layout_ids * size + single + 1, return_inverse=True)
    made = [(kind // size, (kind % size - 1,) * (kind % size > 0)) for kind in kinds.tolist()]
    several: dict[tuple[int, tuple[int, ...]], int] = {}
    listed = blocks.tolist()
    for row in np.flatnonzero(counts > 1).tolist():
        key = int(conversations.layout_ids[row]), tuple(listed[firsts[row] : firsts[row + 1]])
        layout_ids[row] = len(made) + several.setdefault(key, len(several))
    layouts = [
        _with_blocks(conversations.layouts[number], {one // len(words): words[one % len(words)] for one in own})
        for number, own in (*made, *several)
    ]
    return layouts, layout_ids.astype(np.int64)


def _with_blocks(layout: Layout, blocks: Mapping[int, _Words]) -> Layout:
    """Return a layout with blocks, by the positions of their texts."""
    labels: list[str] = []
    position = 0
    for label in layout:
        block = blocks.get(position) if has_text(label) else None
        position += has_text(label)
        if block is None:
            labels.append(label)
            continue
        opening, middle, thinks = block[0].decode(), block[1].decode(), block[2]
        first = f"{label}+{opening}" if opening else label
        labels += (first, f"+{middle}") if thinks else (f"{label}+{opening}{middle}",)
    return tuple(labels)


def _one_by_one(conversations: ConversationColumns) -> ConversationColumns:
    """Return conversations as `take_thoughts_apart` makes them; those of which it makes nothing stay as they are."""
    texts, bounds = conversations.texts.to_pylist(), conversations.text_offsets.tolist()
    found = {}
    rows = zip(conversations.rows.tolist(), conversations.layout_ids.tolist(), pairwise(bounds), strict=True)
    for row, number, (first, last) in rows:
        layout, own = conversations.layouts[number], texts[first:last]
        found[row] = take_thoughts_apart(layout, own) or (layout, own)
    return ConversationColumns.from_rows(found)
