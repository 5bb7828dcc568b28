"""Tools that a template ignores, in filled skeletons: counted as the reference counts them (`tools_ignored`).

That is where the name of a tool on offer does not stand in the text. Where a skeleton has a gap for it, it does. Where
it has none, somebody who asks for the weather may have written it, so that each text is looked into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import ConversationColumns, Layout, text_labels, utf8_buffers
from sft_shards.formats.layouts import offers_of, put_together
from sft_shards.formats.templates import Skeleton
from sft_shards.preprocess.pipeline.batch import Notes
from sft_shards.preprocess.pipeline.skeleton_table import FilledTexts

TOOLS_IGNORED = "tools_ignored"


def unwritten_names(layout: Layout, skeleton: Skeleton) -> tuple[int | str, ...]:
    """Return the names of the tools of a layout that do not stand in its skeleton: numbers of texts, or constants.

    What is done to a text in its gap (it is stripped, or written as JSON) changes no name (see `layouts.NAME`).
    """
    offers = offers_of(layout)
    _, tools = put_together(offers, range(len(text_labels(offers))), lambda _label, number: number)
    names = [tool.get("function", tool).get("name") for tool in tools]
    return tuple(name for name in names if name is not None and not _is_written(name, skeleton))


def _is_written(name: int | str, skeleton: Skeleton) -> bool:
    return any(name in one for one in skeleton.literals) if isinstance(name, str) else name in skeleton.gaps


def with_ignored(
    notes: Notes,
    records: NDArray[np.int64],
    names: Sequence[tuple[int | str, ...]],
    filled: FilledTexts,
    conversations: ConversationColumns,
    owners: NDArray[np.int64],
) -> Notes:
    """Return notes with those of conversations in whose text the name of a tool does not stand.

    Args:
        notes: what else is counted of them.
        records: int64[n], the record number of each conversation.
        names: for each text that was filled in, the names that are looked for in it, as `Skeleton.names` has them.
        filled: the texts.
        conversations: whose texts they are filled with.
        owners: int64[t], the conversation of each text.
    """
    asked = [number for number, own in enumerate(names) if own]
    if not asked:
        return notes
    rows = owners[asked]
    ignoring = rows[list(_lack_names([names[number] for number in asked], asked, filled, conversations, rows))]
    out = {record: (TOOLS_IGNORED, *notes.get(record, ())) for record in records[ignoring].tolist()}
    return dict(sorted({**notes, **out}.items()))


def _lack_names(
    names: Sequence[tuple[int | str, ...]],
    texts: Sequence[int],
    filled: FilledTexts,
    conversations: ConversationColumns,
    rows: NDArray[np.int64],
) -> Iterator[bool]:
    """Yield for some texts whether one of the names does not stand in it."""
    values, offsets = utf8_buffers(conversations.texts)
    contents, bounds = memoryview(values), offsets.tolist()
    text = filled.text.tobytes()
    spans = list(pairwise(filled.text_offsets.tolist()))

    def words(name: int | str, first: int) -> bytes | memoryview:
        return name.encode() if isinstance(name, str) else contents[slice(*bounds[first + name : first + name + 2])]

    for own, number, first in zip(names, texts, conversations.text_offsets[rows].tolist(), strict=True):
        start, end = spans[number]
        yield any(text.find(words(name, first), start, end) < 0 for name in own)
