"""`list` and `diff`: what shard directories hold, and in what two differ. Only manifests are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft_shards.formats.shards import Manifest, SourceInfo
from sft_shards.formats.terminal import UNLIMITED
from sft_shards.preprocess.directories import tables
from sft_shards.preprocess.directories.tables import Column
from sft_shards.preprocess.tasks.diff import differences


def summary(directory: Path) -> dict[str, Any]:
    """Sum up a directory, as `list --json` prints it.

    Raises:
        DataError: it is not a complete shard directory.
    """
    manifest = Manifest.read(directory)
    return {
        "directory": str(directory),
        "tokenizer": manifest.tokenizer.name,
        "vocab_sha256": manifest.tokenizer.vocab_sha256,
        "template": manifest.template.name,
        "sources": len(manifest.sources),
        "records": manifest.counts.read,
        "left_out": sum(manifest.counts.rejected.values()),
        "splits": {
            name: {
                "sequences": info.sequences,
                "tokens": info.tokens,
                "trained_tokens": info.trained_tokens,
                "longest": info.longest,
                "shards": len(info.shards),
            }
            for name, info in manifest.splits.items()
        },
    }


COLUMNS = (
    Column(title="directory", gives_way=True),
    Column(title="split"),
    *(Column(title=title, right=True) for title in ("shards", "sequences", "tokens", "trained", "longest")),
    Column(title="tokenizer", gives_way=True),
    Column(title="template", gives_way=True),
)


def table(summaries: Sequence[dict[str, Any]], *, width: int = UNLIMITED) -> str:
    """Format summaries as a table with a line for each split.

    Args:
        width: columns of the terminal.
    """
    rows = [
        (
            one["directory"],
            split,
            *(f"{info[key]:,}" for key in ("shards", "sequences", "tokens", "trained_tokens", "longest")),
            one["tokenizer"],
            one["template"],
        )
        for one in summaries
        for split, info in one["splits"].items()
    ]
    return "\n".join(tables.table(COLUMNS, rows, width=width))


def compare(one: Path, other: Path) -> list[str]:
    """List in what two directories differ, a line each; empty where they hold the same bytes.

    Raises:
        DataError: one of them is not a complete shard directory.
    """
    manifests = Manifest.read(one), Manifest.read(other)
    left, right = (manifest.as_dict() for manifest in manifests)
    del left["sources"], right["sources"]
    old, new = ({source.path: source for source in manifest.sources} for manifest in manifests)
    lines = []
    for path in [*old, *(path for path in new if path not in old)]:
        if path not in new:
            lines.append(f"source {path}: only in {one}")
        elif path not in old:
            lines.append(f"source {path}: only in {other}")
        elif changed := differences(dict(old[path].options), dict(new[path].options), f"source {path}: options"):
            lines += changed
        elif _places(old[path]) != _places(new[path]) and old[path].bytes == new[path].bytes:
            lines.append(f"source {path}: cut into other parts, so its hashes cannot be compared")
        elif old[path].sha256 != new[path].sha256:
            lines.append(f"source {path}: other contents ({old[path].bytes:,} → {new[path].bytes:,} bytes)")
    before, after = left.pop("splits"), right.pop("splits")
    lines += differences(left, right)
    for split in [*before, *(name for name in after if name not in before)]:
        lines += _split(split, before.get(split), after.get(split))
    return lines


def _places(source: SourceInfo) -> list[tuple[int, int]]:
    return [(part.begin, part.end) for part in source.parts]


def _split(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[str]:
    if old is None or new is None:
        return [f"split {name}: {'only in the second' if old is None else 'only in the first'}"]
    mine, theirs = old.pop("shards"), new.pop("shards")
    lines = differences(old, new, f"split {name}")
    if len(mine) != len(theirs):
        return [*lines, f"split {name}: {len(mine)} → {len(theirs)} shards"]
    changed = [shard["name"] for shard, their in zip(mine, theirs, strict=True) if shard["files"] != their["files"]]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        lines.append(f"split {name}: other bytes in shards {', '.join(changed[:5])}{more}")
    return lines
