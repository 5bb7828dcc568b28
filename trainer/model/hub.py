"""A model by its name on the Hugging Face Hub, as a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from sft_shards.formats import hub
from sft_shards.formats.errors import UsageError

PATTERNS = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja"]


def folder(name: str, revision: str | None = None) -> str:
    """Return the folder that `--model` names: itself, or a copy in the Hub's cache, fetched if needed.

    Args:
        revision: commit, tag or branch of a model on the Hub (default: the newest commit).

    Raises:
        UsageError: there is no such folder, and no such model can be fetched.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise UsageError(f"--revision {revision}: --model {name} is a folder here, not a Hub name; leave it out")
        return str(path)
    if "/" not in name:
        raise UsageError(f"--model {name}: no such folder; name a folder that is there, or OWNER/NAME on the Hub")
    return str(hub.fetch(name, PATTERNS, option="--model", revision=revision))
