"""Conversations in columns: many at once, without a Python object for each.

A conversation is a layout, which says what each of its texts is, and the texts (see `layouts`). As columns, a batch of
conversations is three small integer arrays and one Arrow array of texts, so that reading, rendering and hashing are a
few numpy and Arrow calls for thousands of records. What has no layout is held as a `Conversation`, the general form.

Three conversations in columns, "u" standing for user, "a" for assistant:

    rows            [0, 2, 3]                             record 1 has no layout, and is missing here
    layouts         [(user, assistant), (system, user, assistant)]
    layout_ids      [0, 1, 0]                             record 2 has a system prompt
    texts           ["Hi", "Hello", "Be brief", "Hi", "Yo", "Bye", "Ciao"]
    text_offsets    [0, 2, 5, 7]                          record 2 has texts[2:5]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, string_array

if TYPE_CHECKING:
    import pyarrow as pa

Layout = tuple[str, ...]
"""What a conversation's texts are, in order: of a text-only one, its roles. An Alpaca input is a text of its own, with
the label `INPUT`. Labels of other fields, such as reasoning, may stand among them (see `layouts`)."""
INPUT = "input"


def has_text(label: str) -> bool:
    """Return whether a label of a layout has a text (see `layouts`); every role has."""
    return label.startswith("+") or "=" not in label.partition("+")[0]


@lru_cache(maxsize=1 << 14)
def text_labels(layout: Layout) -> tuple[str, ...]:
    """Return the labels of a layout that have a text, in the order of the texts."""
    return tuple(filter(has_text, layout))


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationColumns:
    """The conversations with a layout among some records, in columns."""

    rows: NDArray[np.int64]
    """int64[n], rising: the position of each conversation's record among the records that were read."""
    layouts: Sequence[Layout]
    """The layouts that occur."""
    layout_ids: NDArray[np.int64]
    """int64[n], aligned with `rows`: index into `layouts`."""
    texts: pa.StringArray
    """The texts of all conversations, in order: one for each label of their layouts that has a text. No nulls; in the
    data buffer each text begins where the one before it ends."""

    @property
    def text_offsets(self) -> NDArray[np.int64]:
        """int64[n + 1]: conversation i has `texts[text_offsets[i]:text_offsets[i + 1]]`."""
        lengths = np.asarray([len(text_labels(roles)) for roles in self.layouts], dtype=np.int64)
        return prefix_sums(lengths[self.layout_ids])

    def by_label(self, value: Callable[[str], Any]) -> NDArray[Any]:
        """Return an array of t items: what a function gives for the label of each text."""
        found = [list(map(value, text_labels(layout))) for layout in self.layouts]
        flat = np.asarray(list(chain.from_iterable(found)))
        firsts = prefix_sums(np.asarray(list(map(len, found)), dtype=np.int64))
        return flat[ranges(firsts[self.layout_ids], np.diff(self.text_offsets))]

    @classmethod
    def from_rows(cls, found: Mapping[int, tuple[Layout, Sequence[str]]]) -> ConversationColumns:
        """Put conversations, each with its layout and texts by row (rising), into columns."""

        ids: dict[Layout, int] = {}
        layout_ids = [ids.setdefault(roles, len(ids)) for roles, _ in found.values()]
        return cls(
            rows=np.fromiter(found, dtype=np.int64, count=len(found)),
            layouts=list(ids),
            layout_ids=np.asarray(layout_ids, dtype=np.int64),
            texts=string_array(chain.from_iterable(texts for _, texts in found.values())),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[ConversationColumns]) -> ConversationColumns:
        """Put the conversations of several parts one after the other; their rows must rise from part to part."""
        import pyarrow as pa

        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.from_rows({})
        shifts = prefix_sums(np.asarray([len(part.layouts) for part in parts]))
        return cls(
            rows=np.concatenate([part.rows for part in parts]),
            layouts=[roles for part in parts for roles in part.layouts],
            layout_ids=np.concatenate([part.layout_ids + shift for part, shift in zip(parts, shifts, strict=False)]),
            texts=pa.concat_arrays([part.texts for part in parts]),
        )

    def filter(self, keep: NDArray[np.bool_]) -> ConversationColumns:
        """Return the conversations that `keep`, bool[n], marks."""

        if keep.all():
            return self
        texts = self.texts.filter(bool_array(np.repeat(keep, np.diff(self.text_offsets))))
        return replace(self, rows=self.rows[keep], layout_ids=self.layout_ids[keep], texts=texts)

    def digests(self) -> Iterator[bytes]:
        """Yield `Conversation.digest` of each conversation."""
        values, offsets = utf8_buffers(self.texts)
        characters = prefix_sums((values & 0xC0) != 0x80)  # every byte but UTF-8's continuation bytes starts one
        lengths = list(map(str, np.diff(characters[offsets]).tolist()))
        roles, raw, bounds = list(map(",".join, self.layouts)), values.tobytes(), offsets.tolist()
        for number, (first, last) in zip(self.layout_ids.tolist(), pairwise(self.text_offsets.tolist()), strict=True):
            yield _digest(roles[number], lengths[first:last], raw[bounds[first] : bounds[last]])


def prefix_sums(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return int64[n + 1]: the sum of the values before each position, and of all.

    For lengths these are offsets:

    >>> prefix_sums(np.array([2, 3, 1])).tolist()
    [0, 2, 5, 6]
    """
    out = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=out[1:])
    return out


def ranges(firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of several ranges one after the other: [5, 6, 0] for the firsts [5, 0] and counts [2, 1]."""
    offsets = prefix_sums(counts)
    out: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(firsts - offsets[:-1], counts)
    return out


def utf8_buffers(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the bytes of all texts, u8[B], and their offsets into it, int32[n + 1], without copying the bytes.

    A sliced array gives its own part only: `["ab", "c", "de"][1:]` gives the bytes `cde` and the offsets [0, 1, 3].
    """
    if not len(texts):
        return np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    _, raw_offsets, raw = texts.buffers()
    offsets = np.frombuffer(raw_offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    values = np.frombuffer(raw, dtype=np.uint8) if raw is not None else np.zeros(0, dtype=np.uint8)
    return values[offsets[0] : offsets[-1]], offsets - offsets[0] if offsets[0] else offsets


def text_only_digest(roles: Layout, texts: Sequence[str]) -> bytes:
    """Return `Conversation.digest` of a text-only conversation, without building it."""
    return _digest(",".join(roles), [str(len(text)) for text in texts], "".join(texts).encode())


def _digest(roles: str, lengths: Sequence[str], texts: bytes) -> bytes:
    """Hash roles, the lengths of the texts in characters (so that no text runs into the next), and the texts."""
    head = ",".join([roles, *lengths]).encode()
    return hashlib.blake2b(head + b"|" + texts, digest_size=16).digest()


def text_only_messages(roles: Layout, texts: Sequence[Any]) -> list[dict[str, Any]]:
    """Return `Conversation.messages` of a text-only conversation, without building it."""
    messages: list[dict[str, Any]] = []
    for role, text in zip(roles, texts, strict=True):
        if role == INPUT:
            last = messages[-1]
            last |= {"instruction": last["content"], "input": text, "content": last["content"] + "\n\n" + text}
        else:
            messages.append({"role": role, "content": text})
    return messages
