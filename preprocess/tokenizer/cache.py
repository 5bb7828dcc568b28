"""The cache of what was found out about tokenizers: a file for each content of a folder and each version that reads it.

    ~/.cache/sft-shards/tokenizers/<hash>.loaded     a tokenizer, loaded (see `loaded`)
                                   <hash>.fastokens  whether fastokens gives its ids (see `backends`)

An entry depends on nothing but its name, so it is never out of date: other files or versions have another name. Many
processes may use the folder at once, and it may be deleted at any time. An entry that is damaged, or that somebody else
can have written, is made anew; where the folder cannot be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sft_shards.formats.cache_folder import cache_folder, read_private, write_private
from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.files import sha256_file
from sft_shards.preprocess.versions import versions

FOLDER = "tokenizers"
READERS = ("backends.py", "loaded.py", "metadata.py", "../../formats/token_bytes.py")
"""The modules that decide what an entry holds, from here; their own text is part of its name."""

T = TypeVar("T")


def cached(
    kind: str,
    files: Mapping[str, str],
    make: Callable[[], T],
    *,
    to_bytes: Callable[[T], bytes],
    from_bytes: Callable[[bytes], T],
) -> T:
    """Return an entry of the cache; make it and keep it if it is not there.

    Args:
        kind: what the entry holds, the ending of its name.
        files: by name, the SHA-256 of each file of the tokenizer folder.
        make: makes what the entry holds.
        to_bytes: gives the content of the file.
        from_bytes: reads it back, or raises DataError if it is damaged.
    """
    path = cache_folder() / FOLDER / f"{_key(files)}.{kind}"
    with suppress(DataError):
        if (content := read_private(path)) is not None:
            return from_bytes(content)
    found = make()
    with suppress(OSError):
        write_private(path, to_bytes(found))
    return found


def _key(files: Mapping[str, str]) -> str:
    readers = [sha256_file(Path(__file__).parent / module) for module in READERS]
    parts = [sorted(files.items()), sorted(versions().items()), readers]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
