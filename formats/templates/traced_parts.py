"""Parts of traced texts: what templates measure and slice to see how a text begins or ends.

Qwen3's template of Unsloth asks `content[:15] == '<tool_response>'`, and slices the end of the content off behind
`content|length - 16`, not below 0. How long a text is and what stands there is not known. What is known is that it is
not shorter than its known words and one character for each gap, and whether a slice equals some words: if all of the
text begins or ends with them. Whatever else is asked of a part raises `Untraceable`.
"""

from __future__ import annotations

from collections.abc import Callable

from sft_shards.formats.templates.traced_text import GAP, HARMLESS, TracedText, Untraceable, refuse, untraced


class Unknown:
    """A value that depends on a text."""


for _name in {*dir(int), *dir(str), *dir(list)} - HARMLESS:
    setattr(Unknown, _name, refuse(_name))


class TracedLength(Unknown):
    """The length of a traced text, less a number."""

    def __init__(self, text: TracedText, less: int = 0) -> None:
        self.text, self.less = text, less

    @property
    def least(self) -> int:
        """The least that it can be."""
        words = GAP.split(untraced(self.text))[0::3]
        return sum(map(len, words)) + len(words) - 1 - self.less

    def __add__(self, other: object) -> TracedLength:
        return TracedLength(self.text, self.less - _whole(other))

    __radd__ = __add__

    def __sub__(self, other: object) -> TracedLength:
        return TracedLength(self.text, self.less + _whole(other))

    def __gt__(self, other: object) -> bool:
        return self._above(_whole(other))

    def __ge__(self, other: object) -> bool:
        return self._above(_whole(other) - 1)

    def __lt__(self, other: object) -> bool:
        return not self >= other

    def __le__(self, other: object) -> bool:
        return not self > other

    def __eq__(self, other: object) -> bool:
        return not self._above(_whole(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Unknown.__hash__

    def __bool__(self) -> bool:
        return self != 0

    def held(self) -> TracedPlace:
        """Return the place that it is in the text, or the text's beginning where it is below 0."""
        return TracedPlace(self.text, self.less)

    def _above(self, most: int) -> bool:
        if self.least <= most:
            raise Untraceable
        return True


class TracedPlace(Unknown):
    """A place in a traced text, counted from its end; the beginning of a text that is shorter."""

    def __init__(self, text: TracedText, behind: int) -> None:
        self.text, self.behind = text, behind


class UnknownText(Unknown):
    """A text of which nothing is known."""

    def strip(self, _chars: object = None) -> UnknownText:
        """Return another such text."""
        return UnknownText()

    lstrip = rstrip = strip


class TracedSlice(UnknownText):
    """So many characters at one end of a traced text, or all of it where it has no more; at least one character."""

    def __init__(self, text: TracedText, number: int, matches: Callable[[TracedText, str], bool]) -> None:
        """Take the first or last characters.

        Args:
            number: how many, above 0.
            matches: `TracedText.startswith` or `TracedText.endswith`.
        """
        self.text, self.number, self.matches = text, number, matches

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Unknown, TracedText)):
            raise Untraceable
        if not isinstance(other, str):
            return False
        if len(other) == self.number:
            return self.matches(self.text, other)
        return len(other) < self.number and self.text == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Unknown.__hash__

    def __bool__(self) -> bool:
        return True


def length_of(text: TracedText) -> int | TracedLength:
    """Return the length of a text."""
    known = _known_length(text)
    return TracedLength(text) if known is None else known


def _known_length(text: TracedText) -> int | None:
    """Return the length of a text of which it is known and to which nothing was done (see `Trace.lengths`)."""
    gap = GAP.fullmatch(untraced(text))
    return text.trace.lengths.get(int(gap[1])) if gap and not gap[2] else None


def item(text: TracedText, index: int) -> str | UnknownText:
    """Return one character of a text, as `text[index]`."""
    first, last = _lengths_around(text)
    if not -last - 1 <= index <= first:  # there may be none
        raise Untraceable
    return sliced(text, index, index + 1 or None)


def sliced(text: TracedText, start: object, stop: object, step: object = None) -> str | UnknownText:
    """Return `text[start:stop:step]`: known words, a text with known words, or a slice that can be compared."""
    if step not in (None, 1):
        raise Untraceable
    words = untraced(text)
    known = _known_length(text)
    numbers = {type(start), type(stop)} <= {int, type(None)}
    if known is not None and numbers and slice(start, stop).indices(known) == (0, known, 1):
        return text
    first, last = _lengths_around(text)
    begin = _distance(text, start, (False, 0))
    end = _distance(text, stop, (True, 0))
    match begin, end:
        case ((False, one), (True, other)) if one <= first and other <= last:
            return TracedText.of(words[one : len(words) - other], text.trace)
        case ((False, one), (False, other)) if other <= max(one, first):
            return words[one:other]
        case ((True, one), (True, other)) if one <= max(other, last):
            return words[len(words) - one : len(words) - min(one, other)]
        case ((False, one), (False, other)) if one <= first:
            return TracedSlice(TracedText.of(words[one:], text.trace), other - one, TracedText.startswith)
        case ((True, one), (True, other)) if other <= last:
            rest = TracedText.of(words[: len(words) - other], text.trace)
            return TracedSlice(rest, one - other, TracedText.endswith)
    return UnknownText()


def _lengths_around(text: TracedText) -> tuple[int, int]:
    """Return how many known characters a text begins and ends with."""
    words = GAP.split(untraced(text))
    return len(words[0]), len(words[-1])


def _distance(text: TracedText, place: object, default: tuple[bool, int]) -> tuple[bool, int]:
    """Return where a slice of a text begins or ends: how far from the text's end (True) or beginning (False).

    Args:
        default: for None.
    """
    if place is None:
        return default
    if isinstance(place, TracedLength) and place.least >= 0:
        place = place.held()
    if isinstance(place, TracedPlace):
        if place.behind < 0 or untraced(place.text) != untraced(text):
            raise Untraceable
        return True, place.behind
    number = _whole(place)
    return number < 0, abs(number)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise Untraceable
    return value
