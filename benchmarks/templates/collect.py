"""Collect chat templates from checkouts: files *.jinja, and entries `chat_template` of JSON files.

    python -m benchmarks.templates.collect CHECKOUT... --output FOLDER

Templates with the same text are kept once. Nothing collected belongs into this repository.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click


def entries(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the templates in a JSON value, each with a name."""
    if isinstance(value, list):
        for one in value:
            yield from entries(one, name)
    elif isinstance(value, dict):
        name = str(value.get("model_name") or name)
        for key, one in value.items():
            if key == "chat_template" and isinstance(one, str):
                yield name, one
            else:
                yield from entries(one, name)


def found_in(checkout: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each template below a folder, in the order of the paths."""
    for path in sorted(checkout.rglob("*")):
        if path.suffix in (".jinja", ".json") and path.is_file() and path.stat().st_size < 8 << 20:
            text = path.read_text(errors="replace")
            if path.suffix == ".jinja":
                yield path.stem, text
            elif '"chat_template"' in text:
                try:
                    yield from entries(json.loads(text), path.parent.name)
                except ValueError:
                    continue


@click.command()
@click.argument("checkouts", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(checkouts: tuple[Path, ...], output: Path) -> None:
    """Collect templates from CHECKOUTS."""
    output.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for checkout in checkouts:
        for name, text in found_in(checkout):
            digest = hashlib.sha256(text.encode()).hexdigest()
            if digest not in seen and "messages" in text:
                seen.add(digest)
                file = f"{checkout.name}--{name.replace('/', '-')}--{digest[:6]}.jinja"
                (output / file).write_text(text)
    click.echo(f"{len(seen)} templates")


if __name__ == "__main__":
    main()
