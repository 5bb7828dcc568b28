"""Templates by name: the tokenizer's own, the built-in ones, those of other packages, and files."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from sft_shards.formats.errors import UsageError, first_line, nearest
from sft_shards.formats.templates.sandbox import LONGEST_SOURCE

GROUP = "sft_shards.templates"
"""Entry point group: a text (or a function without arguments that returns one) registers under its name."""
TOKENIZER = "tokenizer"
"""The name of the tokenizer's own template."""
AUTO = "auto"
SUFFIX = ".jinja"
MOST_BYTES = 4 * LONGEST_SOURCE
"""Of a file; a character of UTF-8 has at most four."""


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
        known = nearest(name, [AUTO, TOKENIZER, *sources()])
        raise UsageError(f"no template {name!r}; {known}, or name a file that ends in {SUFFIX}")
    return sources()[name]


def is_template_file(name: str) -> bool:
    """Return whether `--template` names a file: it ends in .jinja, or it is one and no template has this name."""
    if name in (AUTO, TOKENIZER) or name in sources():
        return False
    return name.endswith(SUFFIX) or Path(name).is_file()


def read_template(path: str) -> str:
    """Return the Jinja text of a file.

    Raises:
        UsageError: it cannot be read, is too large for a template, or is not text; or its name is nothing to publish.
    """
    file = Path(path)
    if not file.name.isprintable():
        raise UsageError(f"--template {path!r}: the name holds a character that cannot be printed; rename the file")
    try:
        if not file.is_file():
            raise UsageError(f"--template {path}: no such file; name one that is there, or one of 'formats'")
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--template {path}: cannot be read ({first_line(error)})") from None
    if len(raw) > MOST_BYTES:
        raise UsageError(f"--template {path}: more than {MOST_BYTES:,} bytes; name a chat template")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--template {path}: byte {error.start} is not UTF-8; name a chat template") from None
    if not text.strip():
        raise UsageError(f"--template {path}: empty; name a chat template")
    return text
