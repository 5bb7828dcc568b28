"""Traced texts: strings that record what a template asks of them, to know for which other texts it would do the same.

A template runs with one `TracedText` for each text of a message. A traced text prints as a numbered sentinel. Whatever
the template asks (is "</think>" in it, does it begin with …, is it empty) is answered as for a text to which none of it
applies, and what must then be absent from other texts is recorded in a `Trace`. `strip` leaves a note in the sentinel.
What cannot be answered without the text itself (its length, its upper case, a slice) raises `Untraceable`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from sft_shards.formats.templates.sentinels import TRACE_CLOSE, TRACE_OPEN, TRACE_STRIP

GAP = re.compile(f"{TRACE_OPEN}(\\d+)((?:{TRACE_STRIP}\\d+)*){TRACE_CLOSE}")
"""How a traced text prints: the number of the text, and what was stripped from it, as positions in `Trace.trims`."""
Trim = tuple[str, str | None]
"""A string method that takes white space off an end (`lstrip`, `rstrip`), and which characters (None: all white space).
"""


class Untraceable(Exception):  # noqa: N818 - control flow, never seen outside
    """What the template does depends on the text in a way that cannot be recorded."""


class Trace:
    """What a template asked of the texts in one run.

    Attributes:
        absent: strings that the template looked for; the run holds for texts that have none of them.
        trims: what it stripped from texts.
    """

    def __init__(self) -> None:
        self.absent: set[str] = set()
        self.trims: list[Trim] = []


class TracedText(str):
    """A text that holds sentinels for texts of messages, and perhaps words of the template around them."""

    trace: Trace

    @classmethod
    def message(cls, number: int, trace: Trace) -> TracedText:
        """Return the traced text for text `number` of the conversation."""
        return cls.of(f"{TRACE_OPEN}{number}{TRACE_CLOSE}", trace)

    @classmethod
    def of(cls, text: str, trace: Trace) -> TracedText:
        """Return a traced text of these characters."""
        new = cls(text)
        new.trace = trace
        return new

    def __add__(self, other: Any) -> TracedText:
        return TracedText.of(str.__add__(untraced(self), untraced(other)), self.trace)

    def __radd__(self, other: Any) -> TracedText:
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
        self._require_absent(item)
        return False

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) and untraced(other):  # no text is empty, so none equals ""
            self._require_absent(other)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def startswith(self, prefix: Any, *bounds: Any) -> bool:
        """Return False; the prefix must be absent."""
        self._require_absent(prefix, *bounds)
        return False

    def endswith(self, suffix: Any, *bounds: Any) -> bool:
        """Return False; the suffix must be absent."""
        self._require_absent(suffix, *bounds)
        return False

    def split(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """Return the text in one piece; the separator must be absent."""
        self._require_absent(sep)
        return [self]

    def rsplit(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """Return the text in one piece; the separator must be absent."""
        return self.split(sep)

    def replace(self, old: Any, new: Any, count: Any = -1) -> str:
        """Return the text unchanged; what is to be replaced must be absent."""
        self._require_absent(old)
        return self

    def removeprefix(self, prefix: Any) -> str:
        """Return the text unchanged; the prefix must be absent."""
        return self.replace(prefix, "")

    def removesuffix(self, suffix: Any) -> str:
        """Return the text unchanged; the suffix must be absent."""
        return self.replace(suffix, "")

    def strip(self, chars: Any = None) -> str:
        """Return the text stripped on both sides, which is recorded."""
        return TracedText.rstrip(TracedText.lstrip(self, chars), chars)

    def lstrip(self, chars: Any = None) -> TracedText:
        """Return the text stripped on the left, which is recorded.

        A text of a message must stand there. No such text is blank, so nothing behind it is stripped.
        """
        return self._stripped(GAP.match(untraced(self)), ("lstrip", chars))

    def rstrip(self, chars: Any = None) -> TracedText:
        """Return the text stripped on the right, which is recorded; a text of a message must stand there."""
        last = max(untraced(self).rfind(TRACE_OPEN), 0)
        return self._stripped(GAP.fullmatch(untraced(self), last), ("rstrip", chars))

    def _stripped(self, gap: re.Match[str] | None, trim: Trim) -> TracedText:
        characters = trim[1]
        if gap is None or not (characters is None or (type(characters) is str and characters.isspace())):
            raise Untraceable
        if trim not in self.trace.trims:
            self.trace.trims.append(trim)
        text, place = untraced(self), gap.end() - 1
        number = self.trace.trims.index(trim)
        return TracedText.of(f"{text[:place]}{TRACE_STRIP}{number}{text[place:]}", self.trace)

    def _require_absent(self, *strings: Any) -> None:
        """Record that no text of a message may hold these strings.

        The template's own words around it may share no character with them: then they cannot stand there either, nor
        across a border.
        """
        words = set(GAP.sub("", untraced(self)))
        for string in strings:
            for each in string if isinstance(string, tuple) else (string,):
                if not isinstance(each, str) or isinstance(each, TracedText) or not each or words & set(each):
                    raise Untraceable
                self.trace.absent.add(each)


_iterate = str.__iter__


def untraced(text: Any) -> str:
    """Return the characters of a text as an ordinary string."""
    return "".join(_iterate(text))


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise Untraceable(name)

    return refuse


# Every method of a string that is not defined above must not be answered by `str` itself.
_HARMLESS = {"__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__", "__init_subclass__"}
_HARMLESS |= {"__subclasshook__", "__doc__", "__dir__", "__sizeof__", "__repr__", "__getstate__"}
for _name in set(dir(str)) - _HARMLESS:
    if _name not in vars(TracedText) or _name == "__hash__":
        setattr(TracedText, _name, _refuse(_name))


def holds_traced(value: Any) -> bool:
    """Return whether a traced text is in a value, however deep in containers; each of these is looked at once."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, TracedText):
            return True
        if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)
    return False
