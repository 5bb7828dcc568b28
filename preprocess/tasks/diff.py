"""What differs between two JSON values, in short phrases: the text of every "made in another way" message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

WIDTH = 60
"""Characters of a value that are shown."""


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """List what differs between two JSON-like values, a phrase each.

    Args:
        where: the path to the values, which begins each phrase.

    >>> differences({"max_length": 512, "field": {}}, {"max_length": 1024, "field": {}}, "config")
    ['config.max_length: 512 → 1024']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            phrase
            for key in keys
            for phrase in differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [phrase for at, (one, other) in pairs for phrase in differences(one, other, f"{where}[{at}]")]
    return [] if old == new else [f"{where}: {_short(old)} → {_short(new)}"]


def joined(phrases: Sequence[str], most: int) -> str:
    """Join phrases for a message of one line, at most so many.

    >>> joined(["a: 1 → 2", "b: 1 → 2", "c: 1 → 2"], 2)
    'a: 1 → 2; b: 1 → 2; and 1 more'
    """
    more = [f"and {len(phrases) - most} more"] if len(phrases) > most else []
    return "; ".join([*phrases[:most], *more])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "…"
