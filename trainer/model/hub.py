"""A model by its name on the Hugging Face Hub, as a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from sft_shards.formats.errors import UsageError

PATTERNS = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja"]


def folder(name: str) -> str:
    """The folder that `--model` names: itself, or a copy of that model in the Hub's cache, fetched if needed.

    Raises:
        UsageError: there is no such folder, and no such model can be fetched.
    """
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if Path(name).expanduser().exists() or looks_like_a_path:
        return str(Path(name).expanduser())
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, allow_patterns=PATTERNS)
    except Exception as error:  # the library raises its own, those of its HTTP client and bare OSErrors
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"--model {name}: no such folder, and it cannot be fetched from the Hub ({reason}); name a folder, "
            "or fetch it where there is a network ('hf download')"
        ) from None
