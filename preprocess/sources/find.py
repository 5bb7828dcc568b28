"""From what the user named to files: files, globs, folders, saved data sets, the Hub, standard input."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.sources.detect import SUFFIXES, look_at, readable
from sft_shards.preprocess.sources.source import Source

STDIN = "-"
HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")
"""OWNER/NAME, with :SPLIT or :CONFIG:SPLIT behind it; the split is `train` without."""


def find_sources(inputs: Sequence[str], stdin: Callable[[], Path] | None = None) -> list[Source]:
    """The files that inputs name, in the order of the inputs; those of a folder in sorted order, each once.

    Args:
        stdin: puts standard input into a file; without it `-` cannot be an input.

    Raises:
        UsageError: an input that is not there, a folder or glob with nothing readable, an empty file.
    """
    found: dict[Path, str] = {}
    for given in inputs:
        for file, name in _files(given, stdin):
            found.setdefault(file, name)
    return [look_at(file, name) for file, name in found.items()]


def _files(given: str, stdin: Callable[[], Path] | None) -> Iterator[tuple[Path, str]]:
    path = Path(given)
    if given == STDIN:
        if stdin is None:
            raise UsageError("-: standard input can be read by 'run' and 'plan' only; name a file")
        yield stdin(), STDIN
    elif path.is_dir():
        for file in _in_folder(path):
            yield file, str(file)
    elif path.is_file():
        yield path, str(path)
    else:
        names = sorted(name for name in glob.glob(given, recursive=True) if Path(name).is_file())
        if names:
            yield from ((Path(name), str(Path(name))) for name in names)
        elif HUB.fullmatch(given) and not readable(path):
            yield from _from_hub(given)
        else:
            raise UsageError(f"{given}: no such file or folder; check the path (globs need quotes in the shell)")


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder: those of a saved data set in its own order, else all that are readable."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        split = "train" if "train" in splits else splits[0]
        if split != "train" and len(splits) > 1:
            raise UsageError(f"{folder}: a data set with splits {', '.join(splits)}; name one: {folder}/{split}")
        return _in_folder(folder / split)
    if (folder / "state.json").is_file():
        state = json.loads((folder / "state.json").read_text("utf-8"))
        return [folder / entry["filename"] for entry in state["_data_files"]]
    found = sorted(
        entry
        for entry in folder.rglob("*")
        if entry.is_file() and readable(entry) and not _is_hidden(entry.relative_to(folder))
    )
    if not found:
        raise UsageError(f"{folder}: nothing readable in this folder; looked for {', '.join(SUFFIXES)}")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _from_hub(given: str) -> Iterator[tuple[Path, str]]:
    """The Arrow files that `datasets` keeps of a data set of the Hub; published as OWNER/NAME:CONFIG:SPLIT#NUMBER."""
    import datasets

    name, *rest = given.split(":")
    split = rest[-1] if rest else "train"
    config = rest[0] if len(rest) > 1 else None
    try:
        found = datasets.load_dataset(name, config, split=split)
        files = [Path(entry["filename"]) for entry in found.cache_files]
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{given}: no such file or folder, and not to be had from the Hub ({reason})") from None
    if not files:
        raise UsageError(f"{given}: the data set has no files on this disk; save it with save_to_disk and name that")
    for number, file in enumerate(files):
        yield file, f"{given}#{number:05d}"
