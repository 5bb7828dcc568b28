"""`merge`: several shard directories become one, without tokenizing again.

The shards are linked (or copied, where the file system cannot link) under new numbers: those of the first directory,
then those of the second, and so on, directories being sorted by their paths however they were given. That is the order
of Megatron's `tools/merge_datasets.py`, within a directory and across them, so both ways of merging give the same
sequences.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import SPLITS, Counts, FileInfo, Manifest, Notes, ShardInfo, SourceInfo, SplitInfo
from sft_shards.formats.shards.contents import folder_inside, open_inside
from sft_shards.formats.shards.files import atomic_write, fsync_directory, sha256_file, write_json
from sft_shards.preprocess.tasks.diff import differences
from sft_shards.preprocess.tasks.output import look
from sft_shards.preprocess.tasks.prepare import prepared
from sft_shards.preprocess.tasks.reuse import link_or_copy
from sft_shards.preprocess.tasks.workdir import WORK, clear
from sft_shards.preprocess.tasks.writer import REJECTS

NAME = "merge.json"


def merge(directories: Sequence[Path], output: Path, *, overwrite: bool = False) -> Manifest:
    """Write a shard directory that holds all sequences of the others.

    Raises:
        UsageError: fewer than two, or directories whose tokenizers or templates differ.
        DataError: one of them is not complete, or the output cannot be written.
    """
    if len(set(directories)) < 2:
        raise UsageError("merge: name at least two different shard directories")
    ordered = sorted(directories, key=str)
    manifests = [Manifest.read(path) for path in ordered]
    for path, manifest in zip(ordered, manifests, strict=True):
        _check(ordered[0], manifests[0], path, manifest)
    if look(output).is_unfinished and not overwrite:
        if not (output / WORK / NAME).exists():
            raise UsageError(f"{output}: holds an unfinished job; choose another --output, or give --overwrite")
        overwrite = True  # a merge that was stopped; it costs nothing to begin again
    with prepared(output, overwrite=overwrite):
        write_json(output / WORK / NAME, [str(path) for path in ordered], scratch=output / WORK)
        merged = _merged(ordered, manifests, output)
        merged.write(output, scratch=output / WORK)
        clear(output)
    return merged


def _check(first: Path, one: Manifest, path: Path, other: Manifest) -> None:
    keep = ("vocab_size", "vocab_sha256", "dtype", "eos_id", "pad_id", "bos_id")
    old, new = ({key: asdict(each.tokenizer)[key] for key in keep} for each in (one, other))
    changed = differences(old, new, "tokenizer")
    if changed:
        raise UsageError(
            f"{path}: has another tokenizer than {first} ({'; '.join(changed)}); make it again with that one"
        )
    if one.template.sha256 != other.template.sha256:
        raise UsageError(
            f"{path}: was made with another template than {first}; train on both without merging: "
            f"sft-train --shards {first} --shards {path}"
        )


def _merged(ordered: list[Path], manifests: list[Manifest], output: Path) -> Manifest:
    splits: dict[str, SplitInfo] = {}
    names: list[dict[tuple[str, str], str]] = [{} for _ in ordered]
    for split in SPLITS:
        having = [
            (at, shard)
            for at, manifest in enumerate(manifests)
            for shard in (manifest.splits[split].shards if split in manifest.splits else ())
        ]
        width = max(5, len(str(len(having) - 1)))
        shards = []
        for number, (at, shard) in enumerate(having):
            name = f"{number:0{width}d}"
            names[at][split, shard.name] = name
            shards.append(_take(ordered[at], split, shard, output, name))
        if shards:
            splits[split] = SplitInfo.of(tuple(shards))
    _copy_tokenizer(ordered[0], manifests[0], output)
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for manifest in manifests:
        rejected.update(manifest.counts.rejected)
        notes.update(manifest.notes.counts)
    return replace(
        manifests[0],
        config={"merged": [manifest.config for manifest in manifests]},
        sources=tuple(
            _renamed(source, names[at]) for at, manifest in enumerate(manifests) for source in manifest.sources
        ),
        splits=splits,
        counts=Counts(
            read=sum(manifest.counts.read for manifest in manifests),
            written=sum(manifest.counts.written for manifest in manifests),
            rejected=dict(sorted(rejected.items())),
        ),
        rejects=_rejects(ordered, output),
        notes=Notes(
            engine="; ".join(dict.fromkeys(manifest.notes.engine for manifest in manifests)),
            counts=dict(sorted(notes.items())),
        ),
        versions=_versions(manifests),
    )


def _take(source: Path, split: str, shard: ShardInfo, output: Path, name: str) -> ShardInfo:
    files = {}
    for path, facts in shard.files.items():
        kind, _, file = path.partition("/")
        place = f"{kind}/{name}{Path(file).suffix}"
        folder_inside(output, f"{split}/{kind}")
        link_or_copy(source, f"{split}/{path}", output / split / place)
        files[place] = facts
    for kind in {place.partition("/")[0] for place in files}:
        fsync_directory(output / split / kind)
    return replace(shard, name=name, files=files)


def _copy_tokenizer(source: Path, manifest: Manifest, output: Path) -> None:
    """Copy the tokenizer files that a manifest names, whose hashes the merged manifest keeps."""
    folder = folder_inside(output, "tokenizer")
    for name in manifest.tokenizer.files:
        with (
            open_inside(source, f"tokenizer/{name}") as file,
            atomic_write(folder / name, scratch=output / WORK) as copy,
        ):
            shutil.copyfileobj(file, copy)


def _renamed(source: SourceInfo, names: dict[tuple[str, str], str]) -> SourceInfo:
    """Give the parts of a source the new names of their shards, by split and old name."""
    return replace(
        source,
        parts=tuple(
            replace(part, shards={split: names[split, name] for split, name in part.shards.items()})
            for part in source.parts
        ),
    )


def _rejects(ordered: list[Path], output: Path) -> FileInfo:
    path = output / REJECTS
    with atomic_write(path, scratch=output / WORK) as merged:
        for directory in ordered:
            with open_inside(directory, REJECTS) as file:
                shutil.copyfileobj(file, merged)
    return FileInfo(bytes=path.stat().st_size, sha256=sha256_file(path))


def _versions(manifests: list[Manifest]) -> dict[str, str]:
    """Join the versions of each library, where the directories were made with several."""
    names = dict.fromkeys(name for manifest in manifests for name in manifest.versions)
    return {
        name: ", ".join(dict.fromkeys(manifest.versions.get(name, "unknown") for manifest in manifests))
        for name in names
    }
