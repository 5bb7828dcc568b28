"""Templates by name: the tokenizer's own, the built-in ones, and those of other packages."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files

from sft_shards.formats.errors import UsageError, nearest

GROUP = "sft_shards.templates"
"""Entry point group: a text (or a function without arguments that returns one) registers under its name."""
TOKENIZER = "tokenizer"
"""The name of the tokenizer's own template."""


@cache
def sources() -> dict[str, str]:
    """Return the Jinja text of every template but the tokenizer's, by name."""
    folder = files("sft_shards.formats.templates.builtin")
    known = {
        entry.name.removesuffix(".jinja"): entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".jinja")
    }
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found = point.load()
        known[point.name] = found() if callable(found) else found
    return known


def template_source(name: str) -> str:
    """Return the Jinja text of a template.

    Raises:
        UsageError: there is none of this name; the nearest name is suggested.
    """
    if name not in sources():
        raise UsageError(f"no template {name!r}; {nearest(name, ['auto', TOKENIZER, *sources()])}")
    return sources()[name]
