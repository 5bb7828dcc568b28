"""Inputs with options of their own: `sources:` in YAML, `--source JSON` in a call.

    sources:
      - chat/*.jsonl
      - path: agentic.parquet
        format: openai
        field: {messages: data.turns}
        map_role: {client: user}
        template_arg: {enable_thinking: true}
        weight: 0.5

A mapping of a source comes before the job's, name by name, and what a record says comes before both. The weight changes
nothing in the shards: it stands in the manifest, and the trainer reads it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.template_arguments import checked

WEIGHT = "weight"


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """An input, and the options that are its own."""

    path: str
    """A file, glob, folder or name on the Hub; each file of it has these options."""
    format: str | None = None
    field: Mapping[str, str] = dataclasses.field(default_factory=dict)
    map_role: Mapping[str, str] = dataclasses.field(default_factory=dict)
    template_arg: Mapping[str, object] = dataclasses.field(default_factory=dict)
    weight: float | None = None
    """How often the trainer shows it for each time that it shows a source without a weight, above 0; None: 1."""

    def own(self) -> dict[str, Any]:
        """Give the options that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value and name != "path"}

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object that `parse_sources` reads."""
        return {"path": self.path, **self.own()}


NAMES = tuple(one.name for one in dataclasses.fields(SourceOptions))


def parse_sources(texts: Iterable[str]) -> tuple[SourceOptions, ...]:
    """Read sources, each a JSON object.

    Raises:
        UsageError: one is no such object, or has a key or a value that is none; the source and the key are named.
    """
    return tuple(_parsed(f"sources[{number}]", text) for number, text in enumerate(texts))


def _parsed(where: str, text: str) -> SourceOptions:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f'{where}: not JSON; write {{"path": "FILE", …}}') from None
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: is {type(raw).__name__}; write a path, or an object with a path")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in NAMES:
            raise UsageError(f"{where}: unknown key {key!r}; {nearest(name, NAMES)}")
        if value is not None:
            values[name] = _value(f"{where}: {name}", name, value)
    if not values.get("path"):
        raise UsageError(f"{where}: no path; name a file, folder, glob or data set")
    return SourceOptions(**values)


def reading(options: Mapping[str, object]) -> dict[str, object]:
    """Return those options of a source that its token ids and masks depend on."""
    return {name: value for name, value in options.items() if name != WEIGHT}


def _value(where: str, name: str, value: Any) -> Any:
    if name in ("path", "format"):
        if not isinstance(value, str) or "\0" in value:
            raise UsageError(f"{where}: is {json.dumps(value):.60}; expected a text; write it in quotes")
        return value
    if name == WEIGHT:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise UsageError(f"{where}: is {json.dumps(value):.60}; expected a number above 0, such as 0.5 or 3")
        return value
    if not isinstance(value, dict):
        raise UsageError(f"{where}: is {json.dumps(value):.60}; expected a mapping")
    if name == "template_arg":
        try:
            return checked({key: one for key, one in value.items() if one is not None})
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from None
    for key, one in value.items():
        if not key or not isinstance(one, str) or not one:
            raise UsageError(f"{where}: {key} is {json.dumps(one):.60}; expected a text; write it in quotes")
    return value
