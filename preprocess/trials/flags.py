"""The flags that make a file readable, found by trying: which format, which columns, which roles.

A data set names its columns and speakers as its maker liked. What they are is guessed from the values: the messages are
a list of objects, a speaker is a word that comes again and again, a text is long. A guess counts only if records can be
read with it, so that what is proposed works for what was looked at. Whoever reads the proposal decides.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import FieldMap
from sft_shards.formats.records.chatml import OPENING
from sft_shards.formats.records.registry import formats
from sft_shards.preprocess.pipeline.containment import is_unforeseen

TRIED = 50
"""Records that guesses are tried on."""
ROLES_TRIED = 8
"""Unknown speakers that are named, at most."""
FEW_SPEAKERS = 8
"""A key of messages with no more different values may name the speaker."""
ASKED = (
    *("instruction", "question", "prompt", "query", "input", "request", "problem", "user", "human", "ask", "source"),
    *("问题", "指令", "提问", "用户", "soru", "pregunta", "frage"),
)
"""Words in names of columns for what the user says, likelier ones first."""
ANSWERED = (
    *("output", "response", "answer", "completion", "reply", "solution", "target", "assistant", "chosen", "bot", "gpt"),
    *("label", "回答", "答案", "输出", "cevap", "respuesta", "antwort"),
)
"""The same for what the assistant says."""
SPEAKERS = {
    "user": (
        *("user", "human", "customer", "client", "patient", "caller", "student", "question", "questioner", "q"),
        *("prompter", "用户", "患者", "来访者"),
    ),
    "assistant": (
        *("assistant", "bot", "agent", "doctor", "gpt", "model", "ai", "chatbot", "teacher", "expert", "answer", "a"),
        *("therapist", "counselor", "advisor", "助手", "医生", "客服"),
    ),
    "system": ("system", "instruction", "context", "background", "系统"),
    "tool": ("tool", "function", "observation", "ipython", "api", "result"),
}
"""Words that name speakers, by role."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Options with which a file can be read."""

    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of columns, as `--field`."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Roles of speakers, as `--map-role`."""
    read: int = 0
    """Records, of those that were tried, that can be read with them."""

    def fields(self) -> FieldMap:
        """Give the names as record formats take them."""
        return FieldMap(columns=self.columns, roles=self.roles)


def as_words(form: str, columns: Mapping[str, object], roles: Mapping[str, object]) -> tuple[str, ...]:
    """Give options as the words of a call.

    Args:
        form: value of `--format`; "" where it is not given.

    >>> as_words("alpaca", {"output": "Answer"}, {})
    ('--format', 'alpaca', '--field', 'output=Answer')
    """
    words = ["--format", form] if form else []
    words += [word for name, value in columns.items() for word in ("--field", f"{name}={value}")]
    words += [word for name, value in roles.items() for word in ("--map-role", f"{name}={value}")]
    return tuple(words)


def propose(records: Sequence[object], given: FieldMap) -> Proposal | None:
    """Find the options with which most records can be read; None where there are none.

    Args:
        records: parsed ones.
        given: names of columns and roles that are known; they are kept.
    """
    tried = records[:TRIED]
    best: Proposal | None = None
    for start in _candidates(tried, given):
        found = _with_roles(replace(start, roles=dict(given.roles)), tried)
        if found.read and (best is None or found.read > best.read):
            best = found
    return best


def _candidates(records: Sequence[object], given: FieldMap) -> Iterator[Proposal]:
    """Yield formats with names of columns, those without a guess first."""
    for name, form in formats().items():
        if any(form.matches(record, given) for record in records):
            yield Proposal(format=name, columns=dict(given.columns))
    flat = [dict(_flattened(record)) for record in records if isinstance(record, Mapping)]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    values = {name: [record[name] for record in flat if record.get(name) is not None] for name in columns}
    for name, seen in values.items():
        if lists := [value for value in seen if _is_messages(value)]:
            yield from _messages(name, lists, given)
    texts = {name: seen for name, seen in values.items() if seen and all(isinstance(value, str) for value in seen)}
    for name, seen in texts.items():
        if any(OPENING.match(value.lstrip()) for value in seen):
            yield Proposal(format="chatml", columns={**given.columns, "text": name})
    yield from _pairs(list(texts), given)


def _flattened(record: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield columns with their values, those of nested objects by dotted names."""
    for key, value in record.items():
        if isinstance(value, Mapping) and depth < 2:
            yield from _flattened(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _messages(name: str, lists: Sequence[list[Mapping[str, Any]]], given: FieldMap) -> Iterator[Proposal]:
    """Propose the speaker's key and the text's: few different values, and long ones."""
    messages = [message for one in lists for message in one]
    keys = dict.fromkeys(key for message in messages for key in message)
    if {"from", "value"} <= keys.keys():
        yield Proposal(format="sharegpt", columns={**given.columns, "messages": name})
    texts = {key: [one[key] for one in messages if isinstance(one.get(key), str)] for key in keys}
    texts = {key: seen for key, seen in texts.items() if len(seen) * 2 > len(messages)}
    speakers = [key for key, seen in texts.items() if len(set(seen)) <= FEW_SPEAKERS]
    by_length = sorted(texts, key=lambda key: -sum(map(len, texts[key])))
    for speaker in sorted(speakers, key=lambda key: key != "role"):
        for content in by_length:
            if content != speaker:
                own = {"messages": name, "role": speaker, "content": content}
                own = {key: value for key, value in own.items() if key != value}
                yield Proposal(format="openai", columns={**given.columns, **own})
                break


def _pairs(texts: Sequence[str], given: FieldMap) -> Iterator[Proposal]:
    """Propose two columns of texts as instruction and output: by their names, else the only two there are."""
    asked, answered = _named(texts, ASKED), _named(texts, ANSWERED)
    pairs = [(one, other) for one in asked for other in answered if one != other]
    if not pairs and len(texts) == 2:
        pairs = [(texts[0], texts[1])]
    for one, other in pairs[:4]:
        own = {key: value for key, value in (("instruction", one), ("output", other)) if key != value}
        yield Proposal(format="alpaca", columns={**given.columns, **own})


def _named(columns: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the columns whose name has one of some words in it, the likelier words first."""
    found = [
        (word != column.lower(), at, column)
        for column in columns
        for at, word in enumerate(words)
        if word in re.split(r"[^\w]|_|(?<=[a-z])(?=[A-Z])", column.lower())
        or (len(word) > 3 and word in column.lower())
    ]
    return list(dict.fromkeys(column for *_, column in sorted(found)))


def _with_roles(start: Proposal, records: Sequence[object]) -> Proposal:
    """Name unknown speakers until none is left, and count the records that can be read."""
    form = formats()[start.format]
    roles = dict(start.roles)
    for _ in range(ROLES_TRIED + 1):
        fields = FieldMap(columns=start.columns, roles=roles)
        read, unknown = 0, Counter[str]()
        for record in records:
            try:
                form.read(record, fields)
                read += 1
            except RecordError as error:
                if (name := unknown_speaker(error)) is not None:
                    unknown[name] += 1
            except Exception as error:
                if not is_unforeseen(error):
                    raise
        fresh = [name for name in unknown if name not in roles]
        if not fresh or len(roles) >= ROLES_TRIED:
            break
        roles[fresh[0]] = _role(fresh[0], roles)
    return replace(start, roles=roles, read=read)


def unknown_speaker(error: RecordError) -> str | None:
    """Return the speaker that an error does not know; None for any other error."""
    if error.reason != "unknown_role":
        return None
    found = re.match(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", error.detail)
    return str(ast.literal_eval(found[0])) if found else None


def _role(name: str, known: Mapping[str, str]) -> str:
    """Guess the role of a speaker: by its name, else the user's for the first one and the assistant's for the next."""
    word = name.strip().lower()
    for role, words in SPEAKERS.items():
        if word in words:
            return role
    return "assistant" if "user" in known.values() else "user"
