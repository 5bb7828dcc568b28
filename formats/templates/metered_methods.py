"""What the methods of texts, the filters and the tests of jinja2 cost, paid before they run (see `budget`).

A single call of `str.replace` or `json.dumps` is C code that nothing can interrupt, so how much it will write has to be
known before. What no chat template has use for, and what no bound is known for, is not there at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import chain
from types import GeneratorType
from typing import Any

import jinja2
import jinja2.filters

from sft_shards.formats.templates.budget import CONTAINERS, OBJECT, SCALARS, SLOT, STEP, Budget

UNBOUNDED = re.compile(r"\d{5,}|\*|:[^}]*\{")
"""Widths of five digits and more, and widths that come from an argument, in either kind of format text."""
WIDEST = 9999
"""The widest field that a format text without such a width can ask for."""
REMOVED = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
"""Filters that chat templates have no use for: `random` cannot be repeated, the others take time that grows quickly."""
SEQUENCES_ALONE = ("tojson", "last")
"""Filters that raise where another filter yields what they are given, as `map` does."""
ENCODINGS = ("utf-8", "utf8", "ascii", "latin-1")
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
MOST_DIGITS = 4300
"""Of a text that becomes a number, as Python's own limit for decimal ones."""


def refuse(what: str) -> jinja2.exceptions.SecurityError:
    """Return the error for what templates may not do."""
    return jinja2.exceptions.SecurityError(f"the template {what}")


def length(value: Any) -> int:
    """Return the length of a text in characters, also of one that would not say it (see `traced_text`); else 0."""
    return str.__len__(value) if isinstance(value, str) else 0


def pay_for_method(budget: Budget, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pay for a call of a method of a value of Python's own, and return its positional arguments.

    Raises:
        SecurityError: chat templates may not call it, or it makes too much.
    """
    if isinstance(owner, str):
        budget.spend(length(owner) + sum(map(length, args)))
        bound = TEXT_METHODS.get(name)
        if bound is None:
            raise refuse(f"calls .{name}() of a text")
        if name == "join" and args:
            args = (list(args[0]), *args[1:])
        budget.spend(bound(owner, *args, **kwargs))
        return args
    if owner is None and name == "maketrans":
        budget.spend(2 * OBJECT * sum(map(length, args)))
        return args
    if isinstance(owner, bytes) and name == "decode":
        budget.spend(len(owner))
        _require_encoding(*args, **kwargs)
        return args
    if isinstance(owner, (list, tuple, dict)) and name in ("get", "items", "keys", "values", "copy", "count", "index"):
        budget.spend(SLOT * len(owner) if name in ("copy", "count", "index") else STEP)
        for value in args:
            if type(value) not in SCALARS and isinstance(value, CONTAINERS):
                budget.weigh(value)
                budget.weigh(owner)
        return args
    if isinstance(owner, (int, float)) and name in ("is_integer", "bit_length"):
        return args
    raise refuse(f"calls .{name}() of a value of type {type(owner).__name__}")


def _same(text: str, *_args: Any, **_kwargs: Any) -> int:
    return 2 * length(text)


def _pad(text: str, width: Any = 0, *_args: Any, **_kwargs: Any) -> int:
    return max(length(text), width if isinstance(width, int) else 0)


def _replace(text: str, old: Any = None, new: Any = "", count: Any = -1) -> int:
    if not isinstance(old, str):
        return 0  # a TypeError
    found = str.count(text, old)
    if isinstance(count, int) and count >= 0:
        found = min(found, count)
    return length(text) + found * length(new)


def _split(text: str, sep: Any = None, maxsplit: Any = -1) -> int:
    pieces = str.count(text, sep) if isinstance(sep, str) and length(sep) else length(text) // 2
    if isinstance(maxsplit, int) and maxsplit >= 0:
        pieces = min(pieces, maxsplit)
    return length(text) + OBJECT * (pieces + 1)


def _splitlines(text: str, *_args: Any, **_kwargs: Any) -> int:
    return length(text) + OBJECT * (1 + sum(map(text.count, LINE_ENDS)))


def _join(separator: str, pieces: Any = (), *_args: Any) -> int:
    return SLOT * len(pieces) + sum(map(length, pieces)) + length(separator) * len(pieces)


def _translate(text: str, table: Any = None) -> int:
    if not isinstance(table, dict):
        raise refuse("calls .translate() with something other than a dict")
    return length(text) * max(chain([1], map(length, table.values())))


def _expandtabs(text: str, tabsize: Any = 8) -> int:
    return length(text) + str.count(text, "\t") * (tabsize if isinstance(tabsize, int) else 0)


def _require_encoding(encoding: Any = "utf-8", errors: Any = "strict") -> None:
    if not isinstance(encoding, str) or encoding.lower() not in ENCODINGS:
        raise refuse("uses an encoding other than UTF-8, ASCII and Latin-1")


def _encode(text: str, *args: Any, **kwargs: Any) -> int:
    _require_encoding(*args, **kwargs)
    return 12 * length(text)


_LINEAR = [
    "capitalize",
    "casefold",
    "count",
    "endswith",
    "find",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "rfind",
    "rindex",
    "rpartition",
    "rstrip",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
]
TEXT_METHODS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(_LINEAR, _same),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _pad),
    "encode": _encode,
    "expandtabs": _expandtabs,
    "join": _join,
    "replace": _replace,
    "rsplit": _split,
    "split": _split,
    "splitlines": _splitlines,
    "translate": _translate,
}
"""For each method of texts that may be called, how many characters it makes at most."""


def pay_for_format(budget: Budget, form: str, values: Iterable[Any]) -> None:
    """Pay for `'…'.format(values)` or `'…' % values`.

    Raises:
        SecurityError: a width is not bounded, or it makes too much.
    """
    if UNBOUNDED.search(form):
        raise refuse("formats to a width that is not bounded")
    longest = max(chain([0], (length(value) or budget.weigh(value) for value in values)))
    if fields := max(str.count(form, "{"), str.count(form, "%")):
        budget.spend(length(form) + fields * 4 * (longest + (WIDEST if re.search(r"\d", form) else STEP)))


def furnish_filters(filters: dict[str, Any], tests: dict[str, Any], budget: Budget) -> None:
    """Replace the filters and tests of an environment by those that pay, and take out `REMOVED`."""
    for name in REMOVED:
        filters.pop(name, None)
    for name, function in filters.items():
        filters[name] = _paying(function, _Costs(budget).of(name), reads_iterators=name not in SEQUENCES_ALONE)
    filters["sum"] = _sum
    for name, function in tests.items():
        if name not in FREE_TESTS:
            tests[name] = _paying(function, _Costs(budget).compare)


FREE_TESTS = frozenset(
    [
        "boolean",
        "callable",
        "defined",
        "false",
        "filter",
        "float",
        "integer",
        "iterable",
        "mapping",
        "none",
        "number",
        "sameas",
        "sequence",
        "string",
        "test",
        "true",
        "undefined",
    ]
)


def _paying(
    function: Callable[..., Any], pay: Callable[..., Any] | None, *, reads_iterators: bool = True
) -> Callable[..., Any]:
    """Return a filter or test that calls `pay` with its arguments before it runs.

    Args:
        reads_iterators: whether it reads what another filter yields, which is then paid for as a list.
    """
    if pay is None:
        return function
    skipped = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        value, rest = args[skipped], args[skipped + 1 :]
        if reads_iterators and isinstance(value, GeneratorType):
            value = list(value)
        pay(value, *rest, **kwargs)
        return function(*args[:skipped], value, *rest, **kwargs)

    return paying


@jinja2.pass_environment
def _sum(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    """Add up, as the filter does, by an addition that pays."""
    get = jinja2.filters.make_attrgetter(environment, attribute) if attribute is not None else None
    total = start
    for value in iterable:
        total = environment.add(total, value if get is None else get(value))
    return total


class _Costs:
    """What filters cost: a method for each that makes more than it is given."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def of(self, name: str) -> Callable[..., Any] | None:
        """Return what a filter pays with; None: nothing."""
        if name in ("abs", "attr", "count", "d", "default", "first", "length", "safe"):
            return None
        if name in ("map", "select", "reject", "selectattr", "rejectattr", "items", "reverse", "last"):
            return self.shallow
        return getattr(self, f"_{name}", self.deep)

    def shallow(self, value: Any, *_args: Any, **_kwargs: Any) -> None:
        self._budget.spend(STEP + (length(value) or SLOT * _count(value)))

    def deep(self, value: Any, *args: Any, **kwargs: Any) -> None:
        for each in (value, *args, *kwargs.values()):
            self._budget.spend(2 * self._budget.weigh(each))

    def compare(self, value: Any, *args: Any, **kwargs: Any) -> None:
        for each in (value, *args, *kwargs.values()):
            if isinstance(each, CONTAINERS):
                self._budget.weigh(each)

    def _list(self, value: Any) -> None:
        numbers = 5 if type(value) is range else 1  # which are made with the list
        self._budget.spend(STEP + OBJECT * length(value) + SLOT * numbers * _count(value))

    def _tojson(self, value: Any, *args: Any, **kwargs: Any) -> None:
        size = self._budget.weigh(value)
        indent = args[1] if len(args) > 1 else kwargs.get("indent")
        separators = args[2] if len(args) > 2 else kwargs.get("separators")
        per_node = sum(map(length, separators)) if isinstance(separators, (list, tuple)) else 0
        if indent is not None:
            per_node += (length(indent) or abs(indent if isinstance(indent, int) else 0)) * _depth(value)
        self._budget.spend(5 * size + per_node * size // SLOT)

    def _join(self, value: Any, d: Any = "", attribute: Any = None) -> None:
        pieces = 0
        for piece in value:
            pieces += 1
            if attribute is not None:  # any of its values may be meant
                self._budget.weigh(piece)
            else:
                self._budget.spend(SLOT + (length(piece) or self._budget.weigh(piece)))
        self._budget.spend(pieces * length(d))

    def _replace(self, value: Any, old: Any, new: Any, count: Any = None) -> None:
        text = value if isinstance(value, str) else ""
        if not text:
            self.deep(value)
            if isinstance(value, CONTAINERS):
                raise refuse("replaces something in a value that is no text")
            text = str(value)
        self._budget.spend(_replace(text, old, new, -1 if count is None else count))

    def _center(self, value: Any, width: Any = 80) -> None:
        self.deep(value)
        self._budget.spend(width if isinstance(width, int) else 0)

    def _indent(self, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
        self.deep(value)
        lines = 1 + (sum(map(value.count, LINE_ENDS)) if isinstance(value, str) else 1)
        self._budget.spend(lines * (length(width) or (width if isinstance(width, int) else 0)))

    def _format(self, value: Any, *args: Any, **kwargs: Any) -> None:
        self.deep(value)
        pay_for_format(self._budget, value if isinstance(value, str) else str(value), [*args, *kwargs.values()])

    def _batch(self, value: Any, linecount: Any, fill_with: Any = None) -> None:
        self._budget.spend(SLOT * (_count(value) + (linecount if isinstance(linecount, int) else 0)))

    def _slice(self, value: Any, slices: Any, fill_with: Any = None) -> None:
        self._budget.spend(SLOT * _count(value) + OBJECT * (slices if isinstance(slices, int) else 0))

    def _round(self, value: Any, precision: Any = 0, method: Any = "common") -> None:
        if not isinstance(precision, int) or abs(precision) > 64:
            raise refuse("rounds to more than 64 digits")

    def _int(self, value: Any, default: Any = 0, base: Any = 10) -> None:
        if length(value) > MOST_DIGITS:
            raise refuse(f"makes a number of more than {MOST_DIGITS} digits")

    _float = _int

    def _escape(self, value: Any) -> None:
        self._budget.spend(6 * self._budget.weigh(value))

    _e = _forceescape = _escape

    def _urlencode(self, value: Any) -> None:
        self._budget.spend(12 * self._budget.weigh(value))


def _count(value: Any) -> int:
    """Return how many items a container or range has; 0 for anything else."""
    return len(value) if isinstance(value, (*CONTAINERS, range)) else 0


def _depth(value: Any) -> int:
    """Return how deep containers are nested."""
    deepest, level = 0, [value]
    while level and deepest < 1000:  # deeper ones end in a RecursionError
        deepest += 1
        seen: dict[int, Any] = {}
        for each in level:
            if isinstance(each, (list, tuple, Mapping)):
                inner = each.values() if isinstance(each, Mapping) else each
                seen.update((id(item), item) for item in inner)
        level = list(seen.values())
    return deepest
