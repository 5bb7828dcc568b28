"""Collect chat templates from checkouts: Jinja files, and the texts in JSON, YAML and program files that are one.

    python -m benchmarks.templates.collect CHECKOUT... --output FOLDER

Templates with the same text are kept once. Nothing collected belongs into this repository.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import jinja2
import yaml
from transformers.utils.chat_template_utils import _compile_jinja_template

LITERAL = re.compile(
    r'R"\w*\((?P<raw>.*?)\)\w*"|"(?P<text>(?:[^"\\\n]|\\.)*)"|`(?P<literal>(?:[^`\\]|\\.)*)`', re.DOTALL
)
"""String literals of C++ and JavaScript."""
FOLDERS_LEFT_OUT = ("node_modules", ".git", "inference-providers", "score", "embed")


def is_template(text: str) -> bool:
    """Return whether a text is a chat template: Jinja that transformers compiles and that reads messages."""
    if "messages" not in text or not re.search(r"\{%-?\s*(?:for|set)\b", text):
        return False
    try:
        _compile_jinja_template(text)
    except jinja2.TemplateError:
        return False
    return True


def in_value(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the templates in a JSON or YAML value, each with a name."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for one in value:
            yield from in_value(one, name)
    elif isinstance(value, dict):
        name = str(value.get("model_name") or value.get("name") or name)
        for key, one in value.items():
            yield from in_value(one, f"{name}-{key}" if name == "tokenizer_config" else name)


def in_python(source: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the constant texts of a Python file, each with the name that it is assigned to."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            yield f"{name}-{ast.unparse(target)}", added_up(node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                yield f"{name}-{ast.unparse(key) if key else ''}", added_up(value)
        elif isinstance(node, (ast.Constant, ast.BinOp)):
            yield name, added_up(node)


def added_up(node: ast.AST) -> str:
    """Return the text of a constant or of a sum of constants; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        first, second = added_up(node.left), added_up(node.right)
        return first + second if first and second else ""
    return ""


def in_literals(source: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the string literals of a C++ or JavaScript file."""
    for found in LITERAL.finditer(source):
        raw, text, literal = found.group("raw", "text", "literal")
        if raw is not None:
            yield name, raw
        elif text and "{%" in text:
            try:
                yield name, json.loads(f'"{text}"')
            except ValueError:
                continue
        elif literal:
            yield name, literal.replace("\\`", "`").replace("\\n", "\n").replace("\\\\", "\\")


def in_file(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the texts of one file that may be templates."""
    text = path.read_text(errors="replace")
    if path.suffix in (".jinja", ".jinja2", ".j2"):
        yield path.stem, text
    elif "{%" not in text:
        return
    elif path.suffix == ".json":
        yield from in_value(json.loads(text), path.stem if path.stem != "tokenizer_config" else path.parent.name)
    elif path.suffix in (".yaml", ".yml"):
        yield from in_value(yaml.safe_load(text), path.stem)
    elif path.suffix == ".py":
        yield from in_python(text, path.stem)
    elif path.suffix in (".ts", ".js", ".hpp", ".cpp"):
        yield from in_literals(text, path.stem)


def found_in(checkout: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each template below a folder, in the order of the paths."""
    for path in sorted(checkout.rglob("*")):
        if not path.is_file() or path.stat().st_size > 8 << 20 or set(path.parts) & set(FOLDERS_LEFT_OUT):
            continue
        try:
            yield from ((name, text) for name, text in in_file(path) if is_template(text))
        except (ValueError, SyntaxError, RecursionError, yaml.YAMLError):
            click.echo(f"{path}: cannot be read, left out", err=True)


def collected(checkouts: Sequence[Path]) -> list[tuple[str, str]]:
    """Return name and text of each template of several folders, each text once."""
    seen: dict[str, str] = {}
    for checkout in checkouts:
        for name, text in found_in(checkout):
            if text not in seen:
                readable = re.sub(r"[^\w.-]+", "-", name).strip("-")[:60]
                seen[text] = f"{checkout.name}--{readable}"
    return [(name, text) for text, name in seen.items()]


@click.command()
@click.argument("checkouts", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(checkouts: tuple[Path, ...], output: Path) -> None:
    """Collect templates from CHECKOUTS."""
    output.mkdir(parents=True, exist_ok=True)
    found = collected(checkouts)
    for name, text in found:
        digest = hashlib.sha256(text.encode()).hexdigest()
        (output / f"{name}--{digest[:6]}.jinja").write_text(text)
    click.echo(f"{len(found)} templates")


if __name__ == "__main__":
    main()
