"""How deeply the values of a record may be nested: a fixed depth, below every limit of Python and of its stack.

Rendering, hashing and copying a value recurse into it. Python stops a recursion where its stack ends, which depends
on who called and differs between machines; a record must be read or left out in the same way everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sft_shards.formats.errors import RecordError

MAX_NESTING = 200
"""Arrays and objects within each other. Tools and their arguments seldom have more than ten."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON.
        RecordError: `nested_too_deeply`.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > MAX_NESTING:
        check_nesting(value)
    return value


def read_json(text: str, where: str, remedy: str = "") -> Any:
    """Return the value of JSON inside a record's text.

    Args:
        where: what the text is, for the detail.
        remedy: what to do, at the end of the detail.

    Raises:
        RecordError: `broken_json`, `nested_too_deeply`.
    """
    try:
        return parse_json(text)
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError("broken_json", f"{where}: {error}{remedy and f'; {remedy}'}") from None


def check_nesting(value: Any) -> None:
    """Make sure that a JSON-like value is not nested too deeply.

    Raises:
        RecordError: `nested_too_deeply`.
    """
    if not _is_within(MAX_NESTING, value):
        raise _too_deep()


def is_shallow(value: Any) -> bool:
    """Return whether a JSON-like value is so shallow that it stays within the limit inside of a record as well."""
    return _is_within(MAX_NESTING // 2, value)


def _is_within(depth: int, value: Any) -> bool:
    level = [value] if value else []
    for _ in range(depth + 1):
        inner: list[Any] = []
        for one in level:
            if type(one) is str:
                continue
            if type(one) is dict or isinstance(one, Mapping):
                inner.extend(one.values())
            elif isinstance(one, (list, tuple)):
                inner.extend(one)
        if not inner:
            return True
        level = inner
    return False


def _too_deep() -> RecordError:
    return RecordError("nested_too_deeply", f"arrays and objects are nested more than {MAX_NESTING} deep")
