"""Texts that watch what a template does to them, and write it down."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

GAP = re.compile("\ufdd6(\\d+)((?:\ufdd8\\d+)*)\ufdd7")
"""The mark of a text, and what was taken off it, as places in `Answers.trims`."""


class Untraceable(Exception):  # noqa: N818 - control flow, never seen outside
    """The outcome depends on the text in a way that cannot be written down."""


Trim = tuple[str, str | None]
"""A method of a text that takes white space off an end of it, and which (None: all there is)."""


class Answers:
    """What was asked of the texts, and answered for a text to which nothing applies."""

    def __init__(self) -> None:
        self.absent: set[str] = set()
        """Not in any text."""
        self.trims: list[Trim] = []
        """What was taken off texts."""


class Watched(str):
    """A text that holds texts of messages, each as a mark, and maybe words of the template around them."""

    answers: Answers

    @classmethod
    def message(cls, number: int, answers: Answers) -> Watched:
        """Text `number` of the conversation."""
        return cls.made(f"\ufdd6{number}\ufdd7", answers)

    @classmethod
    def made(cls, text: str, answers: Answers) -> Watched:
        """A watched text with these characters."""
        new = cls(text)
        new.answers = answers
        return new

    def __add__(self, other: Any) -> Watched:
        return Watched.made(str.__add__(bare(self), bare(other)), self.answers)

    def __radd__(self, other: Any) -> Watched:
        return Watched.made(str.__add__(bare(other), bare(self)), self.answers)

    def __str__(self) -> str:
        return self

    def __format__(self, spec: str) -> str:
        if spec:
            raise Untraceable
        return self

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: object) -> bool:
        self._lacks(item)
        return False

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) and bare(other):  # "" is not equal to a text that is not empty
            self._lacks(other)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def startswith(self, prefix: Any, *bounds: Any) -> bool:
        """False, written down."""
        self._lacks(prefix, *bounds)
        return False

    def endswith(self, suffix: Any, *bounds: Any) -> bool:
        """False, written down."""
        self._lacks(suffix, *bounds)
        return False

    def split(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """One piece, written down."""
        self._lacks(sep)
        return [self]

    def rsplit(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        """One piece, written down."""
        return self.split(sep)

    def replace(self, old: Any, new: Any, count: Any = -1) -> str:
        """Unchanged, written down."""
        self._lacks(old)
        return self

    def removeprefix(self, prefix: Any) -> str:
        """Unchanged, written down."""
        return self.replace(prefix, "")

    def removesuffix(self, suffix: Any) -> str:
        """Unchanged, written down."""
        return self.replace(suffix, "")

    def strip(self, chars: Any = None) -> str:
        """Without white space on both sides."""
        return Watched.rstrip(Watched.lstrip(self, chars), chars)

    def lstrip(self, chars: Any = None) -> Watched:
        """Without white space on the left, written down; a text of a message must stand there. It has more to it, so
        nothing beyond it is touched."""
        return self._trimmed(GAP.match(bare(self)), ("lstrip", chars))

    def rstrip(self, chars: Any = None) -> Watched:
        """Without white space on the right, written down."""
        last = max(bare(self).rfind("\ufdd6"), 0)
        return self._trimmed(GAP.fullmatch(bare(self), last), ("rstrip", chars))

    def _trimmed(self, mark: re.Match[str] | None, trim: Trim) -> Watched:
        chars = trim[1]
        if mark is None or not (chars is None or (type(chars) is str and chars.isspace())):
            raise Untraceable
        if trim not in self.answers.trims:
            self.answers.trims.append(trim)
        text, place = bare(self), mark.end() - 1
        number = self.answers.trims.index(trim)
        return Watched.made(f"{text[:place]}\ufdd8{number}{text[place:]}", self.answers)

    def _lacks(self, *texts: Any) -> None:
        """Write down that no text of a message holds these. Words around it may share no character with them, so
        that they cannot stand there or across a border either."""
        words = set(GAP.sub("", bare(self)))
        for text in texts:
            for each in text if isinstance(text, tuple) else (text,):
                if not isinstance(each, str) or isinstance(each, Watched) or not each or words & set(each):
                    raise Untraceable
                self.answers.absent.add(each)


_ITERATE = str.__iter__


def bare(text: Any) -> str:
    """The characters of a text, as a text that is not watched."""
    return "".join(_ITERATE(text))


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise Untraceable(name)

    return refuse


# Every method of a text that was not thought of above must not be answered by str itself.
_HARMLESS = {"__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__", "__init_subclass__"}
_HARMLESS |= {"__subclasshook__", "__doc__", "__dir__", "__sizeof__", "__repr__", "__getstate__"}
for _name in set(dir(str)) - _HARMLESS:
    if _name not in vars(Watched) or _name == "__hash__":
        setattr(Watched, _name, _refuse(_name))
