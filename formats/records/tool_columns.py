"""Tools on offer from Arrow columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sft_shards.formats.arrow_arrays import bool_array, numbers_of
from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.json_outlines import take_json_apart
from sft_shards.formats.layouts import MOST_LABELS
from sft_shards.formats.records.arrow_columns import is_list, not_empty, take_texts
from sft_shards.formats.records.json_of_columns import json_column
from sft_shards.formats.records.tool_json import TOOLS_RULE

if TYPE_CHECKING:
    import pyarrow as pa


def with_offers(found: ConversationColumns, tools: pa.Array) -> ConversationColumns:
    """Return conversations with the tools that they offer, without those whose tools have no labels.

    Args:
        tools: of each record, which `found.rows` counts: texts in JSON or lists of structs; blank, empty or null where
            there are none.
    """
    texts = json_column(tools) if is_list(tools.type) else tools
    filled = numbers_of(tools.value_lengths(), null=0) > 0 if is_list(tools.type) else not_empty(tools)
    offering = filled[found.rows]
    if not offering.any():
        return found
    if texts is None:
        return found.filter(~offering)
    parts = take_json_apart(texts.filter(bool_array(np.isin(np.arange(len(tools)), found.rows[offering]))), TOOLS_RULE)
    taken = parts.layout_ids >= 0
    keep = np.ones(len(found.rows), dtype=bool)
    keep[offering] = taken
    found, offering, leaves = found.filter(keep), offering[keep], parts.texts
    labels = [(), *parts.layouts]
    own, counts = np.zeros((2, len(found.rows)), dtype=np.int64)
    own[offering], counts[offering] = 1 + parts.layout_ids[taken], parts.counts[taken]
    pairs, layout_ids = np.unique(found.layout_ids * len(labels) + own, return_inverse=True)
    layouts = [labels[pair % len(labels)] + tuple(found.layouts[pair // len(labels)]) for pair in pairs.tolist()]
    firsts = np.repeat(found.text_offsets[:-1], counts)
    order = np.insert(np.arange(len(found.texts)), firsts, len(found.texts) + np.arange(len(leaves)))
    joined = replace(found, layouts=layouts, layout_ids=layout_ids, texts=take_texts([found.texts, leaves], order))
    short = np.asarray([len(layout) <= MOST_LABELS for layout in layouts], dtype=bool)
    return joined.filter(short[layout_ids])
