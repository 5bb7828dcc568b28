"""Names on the Hugging Face Hub, told from paths of folders, and what is fetched by them.

A mistyped path must never become a name that somebody else may have registered, so a text is a name only if nothing
about it looks like a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sft_shards.formats.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Whether a text is `NAME` or `OWNER/NAME` and not a path: nothing of that name is here, nor a folder `OWNER`.

    >>> [is_hub_name(text) for text in ("gpt2", "owner/model", "./model", "~/model", "/model", "model/", "a/b/c", "..")]
    [True, True, False, False, False, False, False, False]
    """
    if not _NAME.fullmatch(text):
        return False
    owner, slash, _ = text.partition("/")
    return not Path(text).exists() and not (slash and Path(owner).exists())


def fetch(name: str, patterns: Sequence[str], *, option: str, revision: str | None = None) -> Path:
    """Fetch files of a model or tokenizer from the Hub, or find them in its cache.

    Args:
        patterns: which files, as `huggingface_hub.snapshot_download` takes them.
        option: what messages call the name, such as "--model".
        revision: a commit, a tag or a branch (default: the newest commit).

    Returns:
        The folder of the snapshot in the cache; its own name is the commit.

    Raises:
        UsageError: the name looks like a path, the revision is malformed, or it cannot be fetched.
    """
    if not is_hub_name(name):
        raise UsageError(
            f"{option} {name}: no such folder; name a folder that is there, or NAME or OWNER/NAME on the Hub "
            "(where no folder OWNER is)"
        )
    if revision is not None and not _REVISION.fullmatch(revision):
        raise UsageError(f"--revision {revision!r}: not a commit, a tag or a branch")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the library raises its own, those of its HTTP client and bare OSErrors
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        at = f" at revision {revision}" if revision is not None else ""
        raise UsageError(
            f"{option} {name}: no such folder, and it cannot be fetched from the Hub{at} ({reason}); name a folder, "
            "or fetch it where there is a network ('hf download')"
        ) from None


def commit(folder: Path) -> str | None:
    """Return the commit of a snapshot in the Hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and len(folder.name) == 40 else None
