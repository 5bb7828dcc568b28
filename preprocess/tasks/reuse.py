"""`--extend DIR`: taking over from an older shard directory what would come out the same.

A part of a source is taken over where the older directory has one of the same file, place and hash, made with the
same configuration, tokenizer, template and versions. Of lines that also needs the part behind it to be the same,
since the last line of a part may end there; a table or a compressed file is taken over as a whole or not at all.
Each task finds out for itself: it hashes its part, and either links the older shard or makes its own. The result is
byte for byte what a run without `--extend` gives. Files are linked where the file system can, else copied.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.shards.files import sha256_file, write_json
from sft_shards.formats.shards.manifest import NAME as MANIFEST
from sft_shards.preprocess.sources import kind_of
from sft_shards.preprocess.sources.streams import hash_range
from sft_shards.preprocess.tasks.plan import Plan, Task, differences
from sft_shards.preprocess.tasks.workdir import WORK
from sft_shards.preprocess.tasks.writer import KINDS, REJECTS, ROWS, reject_line, shift_rows

NAME = "extend.json"
FREE = ("inputs",)
"""What of the configuration may differ."""


def write_candidates(plan: Plan, output: Path, older: Path) -> int:
    """Write down for every task which part of the older directory may be the same; returns how many there are.

    Raises:
        UsageError: the older directory was made in another way.
    """
    manifest = Manifest.read(older)
    changed = [
        phrase
        for name, old, new in (
            ("config", _fixed(manifest.config), _fixed(plan.config.as_dict())),
            ("tokenizer", manifest.tokenizer.files, plan.tokenizer_sha256),
            ("template", manifest.template["sha256"], plan.template_sha256),
            ("versions", manifest.versions, plan.versions),
        )
        for phrase in differences(old, new, name)
    ]
    if changed:
        raise UsageError(f"--extend {older}: made in another way ({'; '.join(changed[:5])}); run without --extend")
    known = {source["path"]: source for source in manifest.sources}
    candidates: dict[str, Any] = {}
    for source in plan.sources:
        old = known.get(source.path)
        tasks = [task for task in plan.tasks if task.source.path == source.path]
        if old is None or any(old[key] != source.published()[key] for key in ("kind", "compression", "format")):
            continue
        by_lines = kind_of(source).keeps_parts_when_appended(source)
        places = [(part["begin"], part["end"]) for part in old["parts"]]
        if not by_lines and places != [(task.part.begin, task.part.end) for task in tasks]:
            continue
        base = 0
        for at, part in enumerate(old["parts"]):
            behind = old["parts"][at + 1 : at + 2] if by_lines else [*old["parts"][:at], *old["parts"][at + 1 :]]
            same = at < len(tasks) and places[at] == (tasks[at].part.begin, tasks[at].part.end)
            if same and (len(tasks) > at + 1) == (len(places) > at + 1):
                also = [[one["begin"], one["end"], one["sha256"]] for one in behind]
                candidates[str(tasks[at].number)] = {"part": part, "base": base, "also": also}
            base += part["records"]
    value = {"directory": os.path.abspath(older), "manifest": sha256_file(older / MANIFEST), "tasks": candidates}
    write_json(output / WORK / NAME, value, scratch=output / WORK)
    return len(candidates)


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in FREE}


def adopt(task: Task, output: Path, folder: Path) -> dict[str, Any] | None:
    """Take a task's shards over into its folder and return its receipt, or None where they must be made.

    Raises:
        DataError: the older directory is not there any more, or the source changed since it was planned.
    """
    path = output / WORK / NAME
    if not path.is_file():
        return None
    raw = _candidates(path, path.stat().st_mtime_ns)
    candidate = raw["tasks"].get(str(task.number))
    if candidate is None:
        return None
    part, source = candidate["part"], task.source
    task.source.check()
    wanted = [[part["begin"], part["end"], part["sha256"]], *candidate["also"]]
    if any(_hashed(source.file, source.mtime_ns, begin, end) != digest for begin, end, digest in wanted):
        return None
    task.source.check()
    older = Path(raw["directory"])
    manifest = _older(older, raw["manifest"])
    shards: dict[str, Any] = {}
    for split, name in part["shards"].items():
        info = next(shard for shard in manifest.splits[split].shards if shard.name == name)
        files = {}
        (folder / split).mkdir()
        for kind in KINDS:
            for suffix in (".bin", ".idx"):
                facts = info.files[f"{kind}/{name}{suffix}"]
                link_or_copy(older / split / kind / f"{name}{suffix}", folder / split / f"{kind}{suffix}")
                files[kind + suffix] = {"bytes": facts.bytes, "sha256": facts.sha256}
        shift_rows(older / split / "rows" / f"{name}.parquet", folder / split / ROWS, -candidate["base"])
        shards[split] = {
            "sequences": info.sequences,
            "tokens": info.tokens,
            "trained_tokens": info.trained_tokens,
            "longest": info.longest,
            "files": files,
        }
    left_out = part["records"] - sum(shard["sequences"] for shard in shards.values())
    rejected = _copy_rejects(older, source.path, candidate["base"], part["records"], folder, left_out)
    return {
        "records": part["records"],
        "sha256": part["sha256"],
        "rejected": dict(sorted(rejected.items())),
        "notes": part["notes"],
        "shards": shards,
    }


@lru_cache(maxsize=1)
def _candidates(path: Path, _mtime_ns: int) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return raw


@lru_cache(maxsize=1)
def _older(directory: Path, digest: str) -> Manifest:
    if sha256_file(directory / MANIFEST) != digest:
        raise DataError(f"{directory}: changed since the job was planned; run again with --overwrite")
    return Manifest.read(directory)


@lru_cache(maxsize=1 << 12)
def _hashed(path: str, _mtime_ns: int, begin: int, end: int) -> str:
    return hash_range(path, begin, end)


def _copy_rejects(older: Path, source: str, base: int, records: int, folder: Path, count: int) -> dict[str, int]:
    rejected: dict[str, int] = {}
    with open(older / REJECTS, encoding="utf-8", newline="\n") as file, open(folder / REJECTS, "wb") as out:
        for line in file if count else ():
            raw = json.loads(line)
            if raw["source"] == source and base <= raw["record"] < base + records:
                raw["record"] -= base
                rejected[raw["reason"]] = rejected.get(raw["reason"], 0) + 1
                out.write(reject_line(**raw).encode("utf-8"))
        out.flush()
        os.fsync(out.fileno())
    return rejected


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, else a copy.

    Raises:
        DataError: the file to take over is gone.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise DataError(f"{source}: gone; run again with --overwrite and without --extend") from None
    except OSError:
        shutil.copyfile(source, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
