"""The one shape that every record format is read into, and every template is rendered from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError

if TYPE_CHECKING:
    import pyarrow as pa

Shape = tuple[str, ...]
"""The roles of a plain conversation, one for each text; an Alpaca input is a text of its own with the role `INPUT`."""
INPUT = "input"
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str | None = None
    """The text as it stood in the record, untouched; None only where an assistant turn is all tool calls."""
    context: str | None = None
    """Alpaca's `input`: a second text of a user turn. Templates that know no such thing get it below the content."""
    reasoning: str | None = None
    """Reasoning that the record keeps apart from the content (`reasoning_content`)."""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """OpenAI's form: `{"type": "function", "function": {"name": str, "arguments": dict}}`."""
    name: str | None = None
    """Who speaks, or which tool answered."""
    tool_call_id: str | None = None
    """The call that a tool turn answers."""
    weight: int = 1
    """0 where the record says that this turn is context only (OpenAI's `weight`), else 1."""

    def message(self) -> dict[str, Any]:
        """The turn as chat templates expect it: a dict without the keys that are not set."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.context is not None:
            out |= {"content": f"{self.content}\n\n{self.context}", "instruction": self.content, "input": self.context}
        if self.reasoning is not None:
            out |= {"reasoning_content": self.reasoning, "thinking": self.reasoning}  # gpt-oss reads the second
        if self.tool_calls:
            out["tool_calls"] = list(self.tool_calls)
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out

    def is_silent(self) -> bool:
        """Neither text, nor reasoning, nor a tool call."""
        return not self.tool_calls and not (self.content or "").strip() and not (self.reasoning or "").strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Turns in order, with the tools on offer.

    Raises:
        RecordError: `unknown_role`, `no_assistant_turn`, `empty_assistant_turn` (an assistant turn that says
            nothing would teach the model to say nothing) or `lone_surrogate`.
    """

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for number, turn in enumerate(self.turns):
            if turn.role not in ROLES:
                raise RecordError("unknown_role", f"turn {number} is by {turn.role!r}, none of {', '.join(ROLES)}")
            if turn.role == "assistant" and turn.is_silent():
                raise RecordError(
                    "empty_assistant_turn", f"turn {number}, an assistant's, has no text and no tool call"
                )
        if not any(turn.role == "assistant" for turn in self.turns):
            roles = ", ".join(turn.role for turn in self.turns) or "none"
            raise RecordError("no_assistant_turn", f"roles: {roles}")
        try:
            self.digest()
        except UnicodeEncodeError:
            raise RecordError(
                "lone_surrogate", "the text holds half of a surrogate pair, which is no character"
            ) from None

    def messages(self) -> list[dict[str, Any]]:
        """The turns as chat templates expect them."""
        return [turn.message() for turn in self.turns]

    def plain(self) -> tuple[Shape, list[str]] | None:
        """The shape and the texts of a conversation that is nothing but roles and texts; None for any other."""
        shape: list[str] = []
        texts: list[str] = []
        for turn in self.turns:
            more = (
                turn.reasoning is not None or turn.tool_calls or turn.name is not None or turn.tool_call_id is not None
            )
            if turn.content is None or more or not turn.weight:
                return None
            shape.append(turn.role)
            texts.append(turn.content)
            if turn.context is not None:
                shape.append(INPUT)
                texts.append(turn.context)
        return None if self.tools else (tuple(shape), texts)

    def digest(self) -> bytes:
        """16 bytes that are equal exactly when two conversations are: what splits and duplicates go by."""
        plain = self.plain()
        if plain is not None:
            return plain_digest(*plain)
        value = [[{**turn.message(), "weight": turn.weight} for turn in self.turns], list(self.tools)]
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


class Plain(NamedTuple):
    """Some of several records, as conversations that are nothing but roles and texts, in columns."""

    rows: NDArray[np.int64]
    """int64[n], rising: which records they are."""
    kinds: Sequence[Shape]
    """The shapes that they have."""
    numbers: NDArray[np.int64]
    """int64[n]: the shape of each, as a place in `kinds`."""
    texts: pa.StringArray
    """The texts of all, one after the other: as many of each as its shape is long. UTF-8, with no gaps in between."""

    @property
    def firsts(self) -> NDArray[np.int64]:
        """int64[n + 1]: the first text of each, and the number of all."""
        return sums(np.asarray([len(kind) for kind in self.kinds], dtype=np.int64)[self.numbers])

    def only(self, keep: NDArray[np.bool_]) -> Plain:
        """Those of the conversations that `keep`, bool[n], says."""
        import pyarrow as pa

        if keep.all():
            return self
        texts = self.texts.filter(pa.array(np.repeat(keep, np.diff(self.firsts))))
        return Plain(self.rows[keep], self.kinds, self.numbers[keep], texts)

    def digests(self) -> Iterator[bytes]:
        """`Conversation.digest` of each."""
        values, ends = utf8(self.texts)
        letters = sums((values & 0xC0) != 0x80)  # bytes that begin a character
        sizes = list(map(str, np.diff(letters[ends]).tolist()))
        heads, raw, bounds = list(map(",".join, self.kinds)), values.tobytes(), ends.tolist()
        for number, (first, last) in zip(self.numbers.tolist(), pairwise(self.firsts.tolist()), strict=True):
            yield _digest(heads[number], sizes[first:last], raw[bounds[first] : bounds[last]])


def sums(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """int64[n + 1]: the sums of the sizes before each, and of all."""
    out = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=out[1:])
    return out


def utf8(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of texts, u8[B], and where each begins in them with the end of the last, int32[n + 1]; not copied."""
    if not len(texts):
        return np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    _, bounds, raw = texts.buffers()
    ends = np.frombuffer(bounds, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    values = np.frombuffer(raw, dtype=np.uint8) if raw is not None else np.zeros(0, dtype=np.uint8)
    return values[ends[0] : ends[-1]], ends - ends[0] if ends[0] else ends


def plain_digest(shape: Shape, texts: Sequence[str]) -> bytes:
    """`Conversation.digest` of a plain conversation, without making it one."""
    return _digest(",".join(shape), [str(len(text)) for text in texts], "".join(texts).encode())


def _digest(roles: str, sizes: Sequence[str], texts: bytes) -> bytes:
    head = ",".join([roles, *sizes]).encode()
    return hashlib.blake2b(head + b"|" + texts, digest_size=16).digest()


def plain_messages(shape: Shape, texts: Sequence[Any]) -> list[dict[str, Any]]:
    """`Conversation.messages` of a plain conversation, without making it one."""
    messages: list[dict[str, Any]] = []
    for role, text in zip(shape, texts, strict=True):
        if role == INPUT:
            last = messages[-1]
            last |= {"instruction": last["content"], "input": text, "content": last["content"] + "\n\n" + text}
        else:
            messages.append({"role": role, "content": text})
    return messages
