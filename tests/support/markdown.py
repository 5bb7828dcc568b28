"""What a Markdown document names: links, anchors, commands and code, read with a few regular expressions.

It reads the part of Markdown that these documents use: fenced and indented code blocks, code in backticks, inline links
and headings with `#`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import product
from pathlib import Path

FENCE = re.compile(r"^ *```(?P<info>\w*)\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", re.MULTILINE)
CODE = re.compile(r"(`+)(?P<body>[^\n]+?)\1")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<text>.*)$", re.MULTILINE)
SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A Markdown file, taken apart."""

    path: Path
    prose: str
    """The text without its code blocks."""
    blocks: tuple[tuple[str, str], ...]
    """Every code block: the language that its fence names ("" for none) and its text."""

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file."""
        text = path.read_text("utf-8")
        blocks = [(found["info"], found["body"]) for found in FENCE.finditer(text)]
        text = FENCE.sub("", text)
        blocks += [("", re.sub("^    ", "", found[0], flags=re.MULTILINE)) for found in INDENTED.finditer(text)]
        return cls(path=path, prose=INDENTED.sub("", text), blocks=tuple(blocks))

    def links(self) -> list[str]:
        """The targets of links to files and to headings, as written."""
        found = [match["target"] for match in LINK.finditer(CODE.sub("", self.prose))]
        return [target for target in found if not re.match(r"[a-z]+:", target)]

    def anchors(self) -> set[str]:
        """The names under which GitHub links to the headings."""
        plain = (re.sub(r"[^\w\- ]", "", match["text"].lower()) for match in HEADING.finditer(self.prose))
        return {text.strip().replace(" ", "-") for text in plain}

    def code(self) -> list[str]:
        """What stands in backticks."""
        return [match["body"] for match in CODE.finditer(self.prose)]

    def commands(self) -> list[list[str]]:
        """Every line of shell as words, of code blocks and of backticks; pipes and `&&` separate commands."""
        lines = [line for info, body in self.blocks if info in SHELL for line in body.replace("\\\n", " ").split("\n")]
        out = []
        for line in [*lines, *self.code()]:
            words = _words(line.strip().removeprefix("$ "))
            while words:
                cut = next((at for at, word in enumerate(words) if word in ("|", "&&", ";")), len(words))
                out.append(words[:cut])
                words = words[cut + 1 :]
        return [words for words in out if words]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # an apostrophe in prose
        return line.split()


def alternatives(text: str) -> list[str]:
    """A name with `{a,b}` in it spelt out: `x/{a,b}.md` is `x/a.md` and `x/b.md`."""
    parts = re.split(r"\{([^{}]*)\}", text)
    return ["".join(one) for one in product(*(part.split(",") if at % 2 else [part] for at, part in enumerate(parts)))]
