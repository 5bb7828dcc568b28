"""Building dataclasses from JSON, every value checked against the type of its field.

Manifests, receipts and plans are read from directories that may come from strangers or from another release. A value
of another type than its field's is an error that names the place, such as `splits.train.shards[0].tokens`, instead of
a traceback somewhere later. Only the types that these files use are known; another one is a bug.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Built = TypeVar("Built")
WORDS = {int: "an integer", str: "a string", bool: "true or false", float: "a number", type(None): "null"}
"""What JSON's plain values are called in messages."""


class SchemaError(ValueError):
    """A value is not of the type that its place asks for; the message begins with the place."""


def parse(text: bytes) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        SchemaError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"not JSON ({error})") from None


def build(kind: type[Built], value: object, place: str = "") -> Built:
    """Build an instance of a dataclass from a JSON object.

    Args:
        kind: the dataclass; a field with a default may be missing from the object.
        place: where the object stands in its file, for messages.

    Raises:
        SchemaError: a field is missing, unknown, or of another type.
    """
    made: Built = checked(kind, value, place)
    return made


@lru_cache(maxsize=64)
def _hints(kind: type) -> tuple[dict[str, Any], list[str]]:
    """Return the types of a dataclass's fields by name, and the names of those that have no default."""
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    return get_type_hints(kind), required


def checked(kind: Any, value: object, place: str) -> Any:
    """Check a JSON value against a type such as `tuple[int, ...]`; return it, objects built and arrays as tuples.

    Raises:
        SchemaError: it is of another type.
    """
    if kind in WORDS:
        right = isinstance(value, (int, float) if kind is float else kind)
        if right and (kind is bool or not isinstance(value, bool)):
            return value
        raise _wrong(place, value, WORDS[kind])
    if is_dataclass(kind):
        return _object(kind, value, place)  # type: ignore[arg-type]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (other,) = (one for one in inner if one is not type(None))
        return checked(other, value, place)
    if origin is tuple:
        return _array(inner, value, place)
    assert origin in (dict, Mapping), f"{place}: fields of type {kind} are not read from JSON"
    if not isinstance(value, dict):
        raise _wrong(place, value, "an object")
    if origin is Mapping and inner[1] not in WORDS:  # any JSON object
        return value
    return {key: checked(inner[1], one, _join(place, key)) for key, one in value.items()}


def _object(kind: type, value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(place, value, "an object")
    hints, required = _hints(kind)
    for name in required:
        if name not in value:
            raise SchemaError(f"{_join(place, name)} is missing")
    for name in value:
        if name not in hints:
            raise SchemaError(f"{_join(place, name)} is not known")
    return kind(**{name: checked(hints[name], one, _join(place, name)) for name, one in value.items()})


def _array(inner: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    """Check an array against `tuple[X, ...]`, or against `tuple[X, Y, Z]` with exactly these items."""
    if not isinstance(value, list | tuple):
        raise _wrong(place, value, "an array")
    kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
    if len(kinds) != len(value):
        raise SchemaError(f"{place} has {len(value)} items, not {len(kinds)}")
    return tuple(checked(kind, one, f"{place}[{at}]") for at, (kind, one) in enumerate(zip(kinds, value, strict=True)))


def _join(place: str, name: str) -> str:
    shown = name if name.isprintable() and len(name) <= 60 else repr(name[:60])
    return f"{place}.{shown}" if place else shown


def _wrong(place: str, value: object, wanted: str) -> SchemaError:
    shown = json.dumps(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return SchemaError(f"{place or 'the file'} is {shown if len(shown) <= 60 else shown[:57] + '...'}, not {wanted}")
