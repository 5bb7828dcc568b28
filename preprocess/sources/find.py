"""From what the user named to sources: standard input, folders, files, globs, data sets of the Hub.

Each way to name inputs is a function in `LOCATIONS`; a new one is a function and an entry there.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError, first_line
from sft_shards.formats.hub import is_hub_name
from sft_shards.formats.shards.contents import is_file_inside, read_inside
from sft_shards.formats.shards.manifest import check_file_names
from sft_shards.formats.shards.schema import SchemaError, parse
from sft_shards.preprocess.inputs import HUB, STDIN, URI, no_such_input
from sft_shards.preprocess.sources.detect import HEAD, FileHead
from sft_shards.preprocess.sources.kinds import recognise, suffixes
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import compression_of, read_head, without_compression_suffix

Spool = Callable[[], Path]
"""Puts standard input into a file, and returns its path."""
FoundFile = tuple[Path, str]
"""A file, and the name that is published for it."""
Location = Callable[[str, Spool | None], "Sequence[FoundFile] | None"]
"""Returns the files that an input names, in order, or None where it is named in another way."""


def find_sources(
    inputs: Sequence[str], stdin: Spool | None = None, options: Sequence[Mapping[str, object]] = ()
) -> list[Source]:
    """Return the files that inputs name, in the order of the inputs; those of a folder in sorted order, each once.

    Args:
        stdin: puts standard input into a file. If it is None, `-` cannot be an input.
        options: of each input, those that its sources have of their own (default: none).

    Raises:
        UsageError: an input that is not there, a folder or glob with nothing readable, an empty or unknown file, or a
            file that two inputs name with different options.
    """
    found: dict[Path, tuple[str, Mapping[str, object]]] = {}
    for number, given in enumerate(inputs):
        own = options[number] if options else {}
        for file, name in _files(given, stdin):
            known = found.setdefault(file, (name, own))
            if known[1] != own:
                raise UsageError(f"{name}: two sources name it with different options; leave it out of one of them")
    return [replace(open_source(file, name), options=own) for file, (name, own) in found.items()]


def named_files(inputs: Sequence[str]) -> list[FoundFile]:
    """Return the files that inputs name, each once, with their names; standard input is none.

    Raises:
        UsageError: an input that is not there, or a folder or glob with nothing readable.
    """
    found: dict[Path, str] = {}
    for given in inputs:
        for file, name in _files(given, None):
            found.setdefault(file, name)
    return list(found.items())


def open_source(file: Path, name: str) -> Source:
    """Look at a file, and return it as a source.

    Args:
        name: what it is called in messages and in the manifest.

    Raises:
        UsageError: it cannot be read, is empty, or no kind of input knows it.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{name!a}: the name of the file is not UTF-8, and the manifest needs it; rename it") from None
    try:
        state = os.stat(file)
        compression = compression_of(read_head(str(file), "", 4))
        head = FileHead(name, read_head(str(file), compression, HEAD))
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from None
    if not head.data.strip():
        raise UsageError(f"{name}: empty; remove it from the inputs")
    kind = recognise(head)
    if kind is None:
        raise UsageError(
            f"{name}: neither JSON nor Parquet (begins with {head.text[:20]!r}); see the formats in the README"
        )
    if compression and not kind.compressible:
        raise UsageError(f"{name}: {kind.name} inside of {compression}; unpack it first")
    return Source(
        path=name,
        file=os.path.abspath(file),
        kind=kind.name,
        compression=compression,
        bytes=state.st_size,
        mtime_ns=state.st_mtime_ns,
    )


def _files(given: str, stdin: Spool | None) -> Sequence[FoundFile]:
    for location in LOCATIONS:
        found = location(given, stdin)
        if found is not None:
            return found
    raise no_such_input(given)


def _standard_input(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    if given != STDIN:
        return None
    if stdin is None:
        raise UsageError("-: standard input can be read by 'run' and 'plan' only; name a file")
    return [(stdin(), STDIN)]


def _folder(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    path = Path(given)
    return [(file, str(file)) for file in _in_folder(path)] if path.is_dir() else None


def _file(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    path = Path(given)
    return [(path, str(path))] if path.is_file() else None


def _glob(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    names = sorted(name for name in glob.glob(given, recursive=True) if Path(name).is_file())
    return [(Path(name), str(Path(name))) for name in names] or None


def _uri(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    found = URI.match(given)
    if found is None:
        return None
    raise UsageError(
        f"{given}: {found[0]} cannot be read; copy the files to a file system of this machine, or mount it"
    )


def _hub(given: str, stdin: Spool | None) -> Sequence[FoundFile] | None:
    """The Arrow files that `datasets` keeps of a data set of the Hub; published as OWNER/NAME:CONFIG:SPLIT#NUMBER."""
    parts = HUB.fullmatch(given)
    if parts is None or not is_hub_name(parts[1]) or _is_readable(Path(given)):
        return None
    import datasets

    if hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE"):  # datasets before 4 asks whether to run scripts
        datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    name, revision, rest = parts[1], (parts[2] or "@")[1:] or None, parts[3].split(":")[1:]
    split = rest[-1] if rest else "train"
    config = rest[0] if len(rest) > 1 else None
    try:
        found = datasets.load_dataset(name, config, split=split, revision=revision)
        files = [Path(entry["filename"]) for entry in found.cache_files]
    except Exception as error:
        raise UsageError(
            f"{given}: no such file or folder, and not to be had from the Hub ({first_line(error)})"
        ) from None
    if not files:
        raise UsageError(f"{given}: the data set has no files on this disk; save it with save_to_disk and name that")
    return [(file, f"{given}#{number:05d}") for number, file in enumerate(files)]


LOCATIONS: tuple[Location, ...] = (_standard_input, _folder, _file, _glob, _uri, _hub)
"""The ways to name inputs, in the order in which they are tried."""


def _in_folder(folder: Path) -> list[Path]:
    """Return the files of a folder: those of a saved data set in its own order, else all that are readable, sorted."""
    splits = _names(folder, "dataset_dict.json", lambda raw: raw["splits"])
    if splits:
        split = "train" if "train" in splits else splits[0]
        if split != "train" and len(splits) > 1:
            raise UsageError(f"{folder}: a data set with splits {', '.join(splits)}; name one: {folder}/{split}")
        return _in_folder(folder / split)
    files = _names(folder, "state.json", lambda raw: [entry["filename"] for entry in raw["_data_files"]])
    if files:
        for name in files:
            is_file_inside(folder, name)  # raises where it is a link; one that is missing is named later
        return [folder / name for name in files]
    found = sorted(
        entry
        for entry in folder.rglob("*")
        if entry.is_file() and _is_readable(entry) and not _is_hidden(entry.relative_to(folder))
    )
    if not found:
        raise UsageError(f"{folder}: nothing readable in this folder; looked for {', '.join(suffixes())}")
    return found


def _names(folder: Path, listing: str, pick: Callable[[Any], list[Any]]) -> list[str]:
    """Return the names of files or folders that a listing of a saved data set holds; none where there is no listing.

    Raises:
        UsageError: the listing is damaged, or a name leads out of its folder.
        DataError: the listing is a link.
    """
    if not is_file_inside(folder, listing):
        return []
    try:
        names = pick(parse(read_inside(folder, listing)))
        check_file_names(names, listing)
    except (SchemaError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder / listing}: not what a saved data set holds ({error}); save the data set again"
        ) from None
    return names


def _is_readable(path: Path) -> bool:
    """Return whether a file in a folder is taken for an input, by its name."""
    return without_compression_suffix(path.name).endswith(suffixes())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
