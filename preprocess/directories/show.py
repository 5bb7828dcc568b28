"""Showing what carries loss: a sequence decoded, trained tokens in one colour and the rest in another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import ShardDirectory
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive tokens of which all carry loss, or none."""

    text: str
    trained: bool
    tokens: int


def stretches(ids: NDArray[Any], loss_mask: NDArray[np.uint8], tokenizer: Tokenizer) -> list[Stretch]:
    """A sequence cut where the mask changes, each part decoded by itself with its control tokens."""
    cuts = np.flatnonzero(np.diff(loss_mask.astype(np.int8))) + 1
    out = []
    for part, mask in zip(np.split(ids, cuts), np.split(loss_mask, cuts), strict=True):
        text = tokenizer.backend.decode(part.tolist(), skip_special_tokens=False)
        out.append(Stretch(text=text, trained=bool(mask[0]), tokens=len(part)))
    return out


def coloured(parts: list[Stretch], *, colour: bool) -> str:
    """The parts as one text: trained in green, the rest dim; without colours, trained text stands in ⟦ ⟧."""
    if not colour:
        return "".join(f"⟦{part.text}⟧" if part.trained else part.text for part in parts)
    return "".join(
        click.style(part.text, fg="green", bold=True) if part.trained else click.style(part.text, dim=True)
        for part in parts
    )


def show(directory: Path, split: str, row: int, *, colour: bool, as_json: bool) -> str:
    """One sequence of a shard directory for people, or as JSON."""
    shards = ShardDirectory(directory)
    opened = shards.split(split)
    tokens, loss_mask = opened[row]
    tokenizer = Tokenizer(str(directory / "tokenizer"))
    parts = stretches(tokens, loss_mask, tokenizer)
    source, record = _origin(directory, split, row, shards)
    if as_json:
        value = {
            "split": split,
            "row": row,
            "source": source,
            "record": record,
            "tokens": tokens.tolist(),
            "loss_mask": loss_mask.tolist(),
            "text": [{"text": part.text, "trained": part.trained} for part in parts],
        }
        return json.dumps(value, ensure_ascii=False)
    head = f"{split} row {row} of {len(opened):,}: {source}, record {record}; "
    head += f"{len(tokens):,} tokens, {int(loss_mask.sum()):,} carry loss"
    return f"{click.style(head, bold=True) if colour else head}\n{coloured(parts, colour=colour)}"


def _origin(directory: Path, split: str, row: int, shards: ShardDirectory) -> tuple[str, int]:
    import pyarrow.parquet as pq

    shard, inner = shards.split(split).locate(row)
    table = pq.read_table(directory / split / "rows" / f"{shard.info.name}.parquet", columns=["source", "record"])
    one = table.slice(inner, 1).to_pylist()[0]
    return one["source"], one["record"]
