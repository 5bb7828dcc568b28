"""Do the shards and the model's own tokenizer mean the same tokens by EOS and BOS?

Equal vocabularies can differ here: a base model ends a document where its chat model ends a turn. Training is right
either way, because the shards say which tokens are trained; but somebody should know. So it is a warning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sft_shards.formats.shards import TokenizerInfo


def warnings(folder: Path, info: TokenizerInfo) -> list[str]:
    """A line for each of EOS and BOS that differs; none where the folder does not say.

    Args:
        folder: the model's, whose vocabulary is that of the shards.
        info: the shards' tokenizer.
    """
    config, ids = _read(folder / "tokenizer_config.json"), _ids(_read(folder / "tokenizer.json"))
    found = []
    for name, ours in (("eos", info.eos_id), ("bos", info.bos_id)):
        token = config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        theirs = ids.get(text) if isinstance(text, str) else None
        if theirs is not None and ours is not None and theirs != ours:
            found.append(
                f"warning: {name.upper()} is id {ours} in the shards and id {theirs} ({text}) in the model's "
                "tokenizer; the exported model gets the shards' tokenizer"
            )
    return found


def _ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Ids by token in a tokenizer.json; only maps of texts to numbers count."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = tokenizer.get("added_tokens")
    return {
        **(vocabulary if isinstance(vocabulary, dict) else {}),
        **{each["content"]: each["id"] for each in (added if isinstance(added, list) else ())},
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}
