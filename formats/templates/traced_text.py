"""Traced texts: strings that record what a template asks of them, to know for which other texts it would do the same.

A template runs with one `TracedText` for each text of a conversation. A traced text prints as a numbered sentinel, a
gap. Words around it, the template's own or those of a layout, are known. Whatever the template asks (is "</think>" in
it, does it begin with …, is it empty) is answered by the known words, and for the gap as for a text to which none of it
applies; what must then be absent from other texts is recorded in a `Trace`. What changes a text on its way (`strip`,
`tojson`) leaves a note in the gap. What cannot be answered without the text itself (its upper case, say) raises
`Untraceable`. Its length and slices are in `traced_parts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, NoReturn

from sft_shards.formats.templates.sentinels import TRACE_CLOSE, TRACE_OPEN, TRACE_STRIP

GAP = re.compile(f"{TRACE_OPEN}(\\d+)((?:{TRACE_STRIP}\\d+)*){TRACE_CLOSE}")
"""How a traced text prints: the number of the text, and what was done to it, as positions in `Trace.changes`."""
SHORTEST_PART = 6
"""Characters of a part of what is looked for that texts are not filled in with; a shorter one stands in many."""


class Untraceable(Exception):  # noqa: N818 - control flow, never seen outside
    """What the template does depends on the text in a way that cannot be recorded."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """`lstrip` or `rstrip`, which takes white space off one end."""

    method: str
    characters: str | None
    """None: all white space."""

    def __call__(self, text: str) -> str:
        """Return a text without it."""
        stripped: str = getattr(text, self.method)(self.characters)
        return stripped


@dataclass(frozen=True, kw_only=True)
class ToJson:
    """`tojson`, of a text, or of a value that is given as JSON."""

    of_json: bool
    ensure_ascii: bool
    indent: int | None
    separators: tuple[str, str] | None
    sort_keys: bool
    margin: int
    """Spaces in front of each line but the first."""

    def __call__(self, text: str) -> str:
        """Return the text as JSON, or the JSON in the form that was asked for."""
        if not self.of_json:  # what `json.dumps` does with a text, in a third of the time
            return encode_basestring_ascii(text) if self.ensure_ascii else encode_basestring(text)
        written = json.dumps(
            json.loads(text),
            ensure_ascii=self.ensure_ascii,
            indent=self.indent,
            separators=self.separators,
            sort_keys=self.sort_keys,
        )
        return written.replace("\n", "\n" + " " * self.margin)

    @property
    def is_canonical(self) -> bool:
        """Whether the JSON is in this form already (see `layouts.json_text`)."""
        plain = (self.ensure_ascii, self.indent, self.separators, self.sort_keys) == (False, None, None, False)
        return self.of_json and plain


@dataclass(frozen=True, kw_only=True)
class ToPython:
    """How Python prints a value that is given as JSON."""

    def __call__(self, text: str) -> str:
        """Return `{'a': [1, True]}` for `{"a": [1, true]}`."""
        return str(json.loads(text))


Change = Trim | ToJson | ToPython
"""What is done to a text before it is written."""


class Trace:
    """What a template asked of the texts in one run.

    Attributes:
        absent: strings that the template looked for; the run holds for texts that have none of them.
        changes: what it did to texts.
        looked_into: the numbers of the texts in JSON that it looked into, or of two that it compared, which ended the
            run.
        sorts: whether it asked for the order of keys that is not known, which ended the run.
        lengths: how many characters texts have, by their numbers, where that is known.
        ids: of texts, by their numbers, a number that the same texts have alone, where that is known.
    """

    def __init__(self) -> None:
        self.absent: set[str] = set()
        self.changes: list[Change] = []
        self.looked_into: set[int] = set()
        self.sorts = False
        self.lengths: dict[int, int] = {}
        self.ids: dict[int, int] = {}

    def gap(self, number: int, changes: Sequence[Change] = ()) -> str:
        """Return how text `number` prints, with what is done to it."""
        self.changes += [change for change in changes if change not in self.changes]
        notes = "".join(f"{TRACE_STRIP}{self.changes.index(change)}" for change in changes)
        return f"{TRACE_OPEN}{number}{notes}{TRACE_CLOSE}"

    def split(self, text: str) -> tuple[list[str], list[int], list[tuple[Change, ...]]]:
        """Return the words around the gaps of a text, the numbers of the gaps, and what is done to each."""
        parts = GAP.split(text)
        notes = [[int(number) for number in part.split(TRACE_STRIP)[1:]] for part in parts[2::3]]
        return parts[0::3], list(map(int, parts[1::3])), [tuple(self.changes[at] for at in own) for own in notes]


class TracedText(str):
    """A text that holds gaps for texts of a conversation, and perhaps known words around them."""

    trace: Trace

    @classmethod
    def message(cls, number: int, trace: Trace) -> TracedText:
        """Return the traced text for text `number` of the conversation."""
        return cls.of(trace.gap(number), trace)

    @classmethod
    def of(cls, text: str, trace: Trace) -> TracedText:
        """Return a traced text of these characters."""
        new = cls(text)
        new.trace = trace
        return new

    def _like(self, text: str) -> str:
        """Return a part of this text: traced only where a gap is in it."""
        return TracedText.of(text, self.trace) if TRACE_OPEN in text else text

    def __add__(self, other: Any) -> TracedText:
        if not isinstance(other, str):
            return NotImplemented
        return TracedText.of(str.__add__(untraced(self), untraced(other)), self.trace)

    def __radd__(self, other: Any) -> TracedText:
        if not isinstance(other, str):
            return NotImplemented
        return TracedText.of(str.__add__(untraced(other), untraced(self)), self.trace)

    def __str__(self) -> str:
        return self

    def __format__(self, spec: str) -> str:
        if spec:
            raise Untraceable
        return self

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: object) -> bool:
        return self._holds(item)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        if isinstance(other, TracedText):
            return untraced(self) == untraced(other) or self._is_id(other)
        words = GAP.split(untraced(self))[0::3]
        first, last = words[0], words[-1]
        if len(other) <= len(first) + len(last) or not (other.startswith(first) and other.endswith(last)):
            return False
        between = other[len(first) : len(other) - len(last)]
        if len(words) > 2:
            if all(word in between for word in words[1:-1]):
                raise Untraceable
            return False
        if between.strip():  # no text is blank
            self._require_plain()
            self.trace.absent.add(between)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def startswith(self, prefix: Any, *bounds: Any) -> bool:
        """Return whether the text begins with known words; what is not known must be absent."""
        if bounds:
            raise Untraceable
        return any(self._begins(one) for one in (prefix if isinstance(prefix, tuple) else (prefix,)))

    def endswith(self, suffix: Any, *bounds: Any) -> bool:
        """Return whether the text ends with known words; what is not known must be absent."""
        if bounds:
            raise Untraceable
        return any(self._ends(one) for one in (suffix if isinstance(suffix, tuple) else (suffix,)))

    def split(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """Return the pieces between the separators in the known words; the gaps must have none."""
        return self._split(sep, maxsplit, str.split)

    def rsplit(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """Return the pieces as `split` does, counted from the right."""
        return self._split(sep, maxsplit, str.rsplit)

    def replace(self, old: Any, new: Any, count: Any = -1) -> str:
        """Return the text with the known words changed; what is to be replaced must be absent from the gaps."""
        self._require_absent(old)
        if not isinstance(new, str) or count != -1:
            raise Untraceable
        return self._like("".join(piece if gap else piece.replace(old, untraced(new)) for gap, piece in self._pieces()))

    def removeprefix(self, prefix: Any) -> str:
        """Return the text without a prefix of the known words."""
        return self._like(untraced(self)[len(prefix) :]) if self._begins(prefix) else self

    def removesuffix(self, suffix: Any) -> str:
        """Return the text without a suffix of the known words."""
        return self._like(untraced(self)[: -len(suffix)]) if self._ends(suffix) else self

    def strip(self, chars: Any = None) -> str:
        """Return the text stripped on both sides, which is recorded."""
        return TracedText.rstrip(TracedText.lstrip(self, chars), chars)

    def lstrip(self, chars: Any = None) -> TracedText:
        """Return the text stripped on the left, which is recorded.

        No text of a conversation is blank, so nothing behind the first gap is stripped.
        """
        if _is_nothing(chars):
            return self
        _require_space(chars)
        text = untraced(self)
        place = text.index(TRACE_OPEN)
        if words := text[:place].lstrip(chars):
            return TracedText.of(words + text[place:], self.trace)
        gap = GAP.match(text, place)
        assert gap is not None, "a gap begins there"
        return TracedText.of(
            self._changed(gap, Trim(method="lstrip", characters=chars)) + text[gap.end() :], self.trace
        )

    def rstrip(self, chars: Any = None) -> TracedText:
        """Return the text stripped on the right, which is recorded."""
        if _is_nothing(chars):
            return self
        _require_space(chars)
        text = untraced(self)
        place = text.rindex(TRACE_CLOSE) + 1
        if words := text[place:].rstrip(chars):
            return TracedText.of(text[:place] + words, self.trace)
        begin = text.rindex(TRACE_OPEN)
        gap = GAP.match(text, begin)
        assert gap is not None, "a gap begins there"
        return TracedText.of(text[:begin] + self._changed(gap, Trim(method="rstrip", characters=chars)), self.trace)

    def as_json(self, change: ToJson) -> str:
        """Return the text as JSON; there are no known words around it."""
        gap = GAP.fullmatch(untraced(self))
        if gap is None:
            raise Untraceable
        return self._changed(gap, change)

    def _changed(self, gap: re.Match[str], change: Change) -> str:
        """Return a gap with one more change. JSON, or what Python prints, has no white space at its ends."""
        _, (number,), (changes,) = self.trace.split(gap[0])
        if any(not isinstance(one, Trim) for one in changes):
            if not isinstance(change, Trim):
                raise Untraceable
            return gap[0]
        return self.trace.gap(number, changes if changes[-1:] == (change,) else (*changes, change))

    def _pieces(self) -> list[tuple[bool, str]]:
        """Return the known words and the gaps, in order; True for a gap."""
        text, begin = untraced(self), 0
        out = []
        for gap in GAP.finditer(text):
            out += [(False, text[begin : gap.start()]), (True, gap[0])]
            begin = gap.end()
        return [*out, (False, text[begin:])]

    def _split(self, sep: Any, maxsplit: Any, method: Callable[..., list[str]]) -> list[str]:
        if maxsplit not in (-1, 1) or not isinstance(sep, str) or not sep:
            raise Untraceable
        self._require_absent(sep)
        out = [""]
        pieces = self._pieces()
        for gap, piece in pieces:
            first, *more = [piece] if gap else piece.split(sep)
            out[-1] += first
            out += more
        if maxsplit == 1 and len(out) > 2:
            out = [out[0], sep.join(out[1:])] if method is str.split else [sep.join(out[:-1]), out[-1]]
        return [self._like(one) for one in out]

    def _is_id(self, other: TracedText) -> bool:
        """Return whether another text is the same, of two ids that are told apart."""
        own, others = GAP.fullmatch(untraced(self)), GAP.fullmatch(untraced(other))
        if own is None or others is None or own[2] or others[2]:
            raise Untraceable
        numbers = [int(own[1]), int(others[1])]
        if not self.trace.ids.keys() >= {*numbers}:
            self.trace.looked_into.update(numbers)
            raise Untraceable
        return self.trace.ids[numbers[0]] == self.trace.ids[numbers[1]]

    def _holds(self, item: object) -> bool:
        words = GAP.split(untraced(self))[0::3]
        if isinstance(item, str) and not isinstance(item, TracedText) and any(item in one for one in words):
            return True
        self._require_absent(item)
        return False

    def _begins(self, prefix: Any) -> bool:
        words = untraced(self).partition(TRACE_OPEN)[0]
        return self._at_end(prefix, words, str.startswith, lambda text: text[len(words) :])

    def _ends(self, suffix: Any) -> bool:
        words = untraced(self).rpartition(TRACE_CLOSE)[2]
        return self._at_end(suffix, words, str.endswith, lambda text: text[: len(text) - len(words)])

    def _at_end(self, wanted: Any, words: str, matches: Callable[[str, str], bool], rest: Callable[[str], str]) -> bool:
        """Return whether a text has some words at an end where it has known words."""
        if not isinstance(wanted, str) or isinstance(wanted, TracedText):
            raise Untraceable
        if len(wanted) <= len(words):
            return matches(words, wanted)
        if matches(wanted, words):
            self._require_absent(rest(wanted))
        return False

    def _require_absent(self, wanted: Any) -> None:
        """Record that no gap may hold a string, nor what of it would stand across a gap's border.

        With "\\n" in front of a gap and "\\n</think>" wanted, it may not hold "</think>" either.
        """
        if not isinstance(wanted, str) or isinstance(wanted, TracedText) or not wanted:
            raise Untraceable
        self._require_plain()
        words = GAP.split(untraced(self))[0::3]
        if len(wanted) > 1 and any(known in wanted[1:-1] for known in words[1:-1]):
            raise Untraceable
        absent = {wanted}
        for before, behind in pairwise(words):
            first = {wanted[cut:] for cut in range(1, len(wanted)) if before.endswith(wanted[:cut])}
            last = {wanted[:cut] for cut in range(1, len(wanted)) if behind.startswith(wanted[cut:])}
            if (first and last) or any(len(part.strip()) < SHORTEST_PART for part in first | last):
                raise Untraceable
            absent |= first | last
        self.trace.absent |= absent

    def _require_plain(self) -> None:
        """Refuse to look into what is written of a text."""
        for changes in self.trace.split(untraced(self))[2]:
            if any(not isinstance(change, Trim) for change in changes):
                raise Untraceable


_iterate = str.__iter__


def untraced(text: Any) -> str:
    """Return the characters of a text as an ordinary string."""
    return "".join(_iterate(text))


def _is_nothing(chars: Any) -> bool:
    return type(chars) is str and not chars


def _require_space(chars: Any) -> None:
    if not (chars is None or (type(chars) is str and chars.isspace())):
        raise Untraceable


def refuse(name: str) -> Callable[..., NoReturn]:
    """Return a method that cannot be answered."""

    def refuse_(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise Untraceable(name)

    refuse_.__name__ = name
    return refuse_


# Every method of a string that is not defined above must not be answered by `str` itself.
HARMLESS = {"__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__", "__init_subclass__"}
HARMLESS |= {"__subclasshook__", "__doc__", "__dir__", "__sizeof__", "__getstate__"}
for _name in set(dir(str)) - HARMLESS:
    if _name not in vars(TracedText) or _name == "__hash__":
        setattr(TracedText, _name, refuse(_name))
