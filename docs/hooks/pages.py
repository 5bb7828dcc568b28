"""What the site has beside the files of this folder: two pages of the folder above, and the order of docs/README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ABOVE = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_config(config: Any) -> Any:
    """Make the navigation of the table in README.md, so that there is one list of the documents."""
    sections: list[dict[str, list[str]]] = []
    seen = set()
    for line in (ROOT / "docs" / "README.md").read_text("utf-8").splitlines():
        if found := re.match(r"\| \*\*(.+)\*\* \|", line):
            sections.append({found[1]: []})
        for name in re.findall(r"\]\((?:\.\./)?([\w.-]+\.md)", line):
            if sections and name not in seen:
                seen.add(name)
                next(iter(sections[-1].values())).append(name)
    config["nav"] = ["README.md", *sections]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the folder above."""
    for name in ABOVE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8").replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links lead to those pages; other files of the repository are named only."""
    markdown = re.sub(rf"\]\(\.\./({'|'.join(ABOVE)})", r"](\1", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
    return re.sub(r"(?m)^\|.*$", lambda row: re.sub("`[^`]+`", _unescaped, row[0]), markdown)


def _unescaped(code: re.Match[str]) -> str:
    """Return code in a table without the backslashes that GitHub needs before its bars."""
    return code[0].replace(r"\|", "|")
