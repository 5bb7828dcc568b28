"""Rendering of a page: Jinja with everything escaped, one style sheet within the page, and no script.

A page is at most `LIMIT` bytes, whatever the data: whoever makes its values bounds them in characters (`clip`,
`excerpt`), of which HTML takes up to six bytes each.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_shards.formats.shards.files import atomic_write
from sft_shards.formats.terminal import printable

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
LIMIT = 2_000_000
"""Bytes of a page, at most."""


def render(name: str, **values: Any) -> str:
    """Render a template of this folder.

    Args:
        name: its file, such as "report.html".
        values: what it is given; every text is escaped.
    """
    return _environment().get_template(name).render(**values)


def write(path: Path, page: str) -> None:
    """Write a page in one step.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as file:
        file.write(page.encode("utf-8"))


def clip(text: object, limit: int = 300) -> str:
    r"""Return a text as one line of at most `limit` characters; a longer one is cut in its middle.

    >>> clip("a\nb" * 9, 9)
    'a\\nb…a\\nb'
    """
    line = printable(str(text)[: 2 * limit] + str(text)[2 * limit :][-limit:])
    if len(line) <= limit:
        return line
    half = (limit - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": "{:,}".format, "percent": "{:.1%}".format, "clip": clip, "size": _size}
    environment.globals["style"] = _style
    return environment


def _style() -> Any:
    from markupsafe import Markup

    return Markup((FOLDER / "page.css").read_text("utf-8"))  # noqa: S704 - our own file


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"


def check_output(path: Path, directory: Path | None = None) -> None:
    """Check that a page may be written there.

    Args:
        directory: a shard directory, in which it may not lie, since every file there is in the manifest.

    Raises:
        UsageError: it may not.
    """
    from sft_shards.formats.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    if directory is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory)):
        raise UsageError(f"{path}: lies in the shard directory, which holds what its manifest names; name another file")
