"""`merge`: several shard directories become one, without tokenizing again.

The shards are linked (or copied, where the file system cannot link) under new numbers: those of the first directory,
then those of the second, and so on, directories being sorted by their paths however they were given. That is the order
of Megatron's `tools/merge_datasets.py`, within a directory and across them, so both ways of merging give the same
sequences.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import SPLITS, Counts, FileInfo, Manifest, Notes, ShardInfo, SourceInfo, SplitInfo
from sft_shards.formats.shards.contents import folder_inside
from sft_shards.formats.shards.files import atomic_write, sha256_file, sha256_inside, sync_folders
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.preprocess.directories.merge_plan import MergePlan
from sft_shards.preprocess.tasks.diff import differences
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.output import OutputState, check_apart, look, writing
from sft_shards.preprocess.tasks.prepare import prepared
from sft_shards.preprocess.tasks.replacement import publish, recover, settle
from sft_shards.preprocess.tasks.reuse import link_or_copy, open_verified
from sft_shards.preprocess.tasks.workdir import WORK


def merge(directories: Sequence[Path], output: Path, *, overwrite: bool = False) -> Manifest:
    """Write a shard directory that holds all sequences of the others.

    A merge that was killed goes on with the same call; on the finished directory the same call does nothing.

    Raises:
        UsageError: fewer than two, directories whose tokenizers or templates differ, an output that overlaps with one
            of them, or an output that holds something else.
        DataError: one of them is not complete or damaged, or the output cannot be written.
    """
    if len(set(directories)) < 2:
        raise UsageError("merge: name at least two different shard directories")
    ordered = sorted(directories, key=str)
    check_apart(output, ordered)
    manifests = [Manifest.read(path) for path in ordered]
    for path, manifest in zip(ordered, manifests, strict=True):
        _check(ordered[0], manifests[0], path, manifest)
    recover(output)
    state = look(output)
    if state is OutputState.PUBLISHED or (state is OutputState.COMPLETE and not overwrite):
        try:
            merged = _finished(manifests, output)
        except (UsageError, DataError):
            if not overwrite:
                raise
        else:
            if state is OutputState.PUBLISHED:
                with writing(output), job_lock(output):
                    settle(output)
            return merged
    with prepared(output, overwrite=overwrite) as folder:
        if folder == output and look(output).is_complete:  # another process merged between the look and the lock
            return _finished(manifests, output)
        MergePlan.of(ordered).claim(folder, overwrite=overwrite)
        merged = _written(ordered, manifests, folder)
        publish(folder, output)
        return merged


def _finished(manifests: list[Manifest], output: Path) -> Manifest:
    """Return the manifest of a complete output that this very merge made.

    The hash of its rejects is not computed again: the manifests tell from what and how they came to be.

    Raises:
        UsageError: something else made it.
    """
    found = Manifest.read(output)
    splits, names = _numbered(manifests)
    if found.as_dict() != _manifest(manifests, splits, names, found.rejects).as_dict():
        raise UsageError(
            f"{output}: already holds a complete shard directory; choose another --output, or give --overwrite"
        )
    return found


def _written(ordered: list[Path], manifests: list[Manifest], output: Path) -> Manifest:
    """Make the merged directory in a folder whose lock is held, from where a killed merge stopped."""
    splits, names = _numbered(manifests)
    for path, manifest, new_names in zip(ordered, manifests, names, strict=True):
        for split, info in manifest.splits.items():
            for shard in info.shards:
                _take(path, split, shard, output, new_names[split, shard.name])
    for split in splits:
        sync_folders(output / split)
    _copy_tokenizer(ordered[0], manifests[0], output)
    manifests[0].template.copy_file(output, scratch=output / WORK)
    merged = _manifest(manifests, splits, names, _rejects(ordered, manifests, output))
    merged.write(output, scratch=output / WORK)
    return merged


def _check(first: Path, one: Manifest, path: Path, other: Manifest) -> None:
    keep = ("vocab_size", "vocab_sha256", "dtype", "eos_id", "pad_id", "bos_id")
    old, new = ({key: asdict(each.tokenizer)[key] for key in keep} for each in (one, other))
    changed = differences(old, new, "tokenizer")
    if changed:
        raise UsageError(
            f"{path}: has another tokenizer than {first} ({'; '.join(changed)}); make it again with that one"
        )
    for what, mine, theirs in (
        ("another template", one.template.sha256, other.template.sha256),
        ("another template for tools", one.template.tools_sha256, other.template.tools_sha256),
        ("other template arguments", one.template.arguments, other.template.arguments),
    ):
        if changed := differences(mine, theirs, "template"):
            shown = f" ({'; '.join(changed)})" if what.startswith("other") else ""
            raise UsageError(
                f"{path}: was made with {what} than {first}{shown}; train on both without merging: "
                f"sft-train --shards {first} --shards {path}"
            )


def _numbered(manifests: list[Manifest]) -> tuple[dict[str, SplitInfo], list[dict[tuple[str, str], str]]]:
    """Number the shards of all directories anew.

    Returns:
        The splits of the merged directory, and for each directory the new names of its shards by split and old name.
    """
    splits: dict[str, SplitInfo] = {}
    names: list[dict[tuple[str, str], str]] = [{} for _ in manifests]
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
            files = {_place(path, name): facts for path, facts in shard.files.items()}
            shards.append(replace(shard, name=name, files=files))
        if shards:
            splits[split] = SplitInfo.of(tuple(shards))
    return splits, names


def _place(path: str, name: str) -> str:
    """Give the path of a shard's file under the shard's new name.

    >>> _place("tokens/00003.bin", "00012")
    'tokens/00012.bin'
    """
    kind, _, file = path.partition("/")
    return f"{kind}/{name}{Path(file).suffix}"


def _manifest(
    manifests: list[Manifest],
    splits: dict[str, SplitInfo],
    names: list[dict[tuple[str, str], str]],
    rejects: FileInfo | None,
) -> Manifest:
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
        rejects=rejects,
        notes=Notes(
            engine="; ".join(dict.fromkeys(manifest.notes.engine for manifest in manifests)),
            counts=dict(sorted(notes.items())),
        ),
        versions=_versions(manifests),
    )


def _take(source: Path, split: str, shard: ShardInfo, output: Path, name: str) -> None:
    """Take a shard over under its new name; files that are there and right, after a kill, are left as they are."""
    for path, facts in shard.files.items():
        place = f"{split}/{_place(path, name)}"
        folder_inside(output, os.path.dirname(place))
        if sha256_inside(output, place) != facts.sha256:
            link_or_copy(source, f"{split}/{path}", output / place, sha256=facts.sha256, scratch=output / WORK)


def _copy_tokenizer(source: Path, manifest: Manifest, output: Path) -> None:
    """Copy the tokenizer files that a manifest names, whose hashes the merged manifest keeps."""
    for name, digest in manifest.tokenizer.files.items():
        place = f"tokenizer/{name}"
        folder_inside(output, os.path.dirname(place))
        with (
            open_verified(source, place, digest) as file,
            atomic_write(output / place, scratch=output / WORK) as copy,
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


def _rejects(ordered: list[Path], manifests: list[Manifest], output: Path) -> FileInfo:
    path = output / REJECTS
    with atomic_write(path, scratch=output / WORK) as merged:
        for directory, manifest in zip(ordered, manifests, strict=True):
            with open_verified(directory, REJECTS, manifest.rejects.sha256 if manifest.rejects else None) as file:
                shutil.copyfileobj(file, merged)
    return FileInfo(bytes=path.stat().st_size, sha256=sha256_file(path))


def _versions(manifests: list[Manifest]) -> dict[str, str]:
    """Join the versions of each library, where the directories were made with several."""
    names = dict.fromkeys(name for manifest in manifests for name in manifest.versions)
    return {
        name: ", ".join(dict.fromkeys(manifest.versions.get(name, "unknown") for manifest in manifests))
        for name in names
    }
