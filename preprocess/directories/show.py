"""`inspect`: one sequence, decoded, with what carries loss in another colour than the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, first_line
from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.rows import TURNS, read_rows
from sft_shards.formats.terminal import printable, printable_text
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class MaskedSpan:
    """Consecutive tokens that all carry loss, or all do not."""

    text: str
    """The tokens decoded by themselves, control tokens included."""
    trained: bool
    """Whether they carry loss."""
    tokens: int
    """How many there are."""


def masked_spans(ids: NDArray[Any], loss_mask: NDArray[np.uint8], tokenizer: Tokenizer) -> list[MaskedSpan]:
    """Cut a sequence wherever its mask changes, and decode each span.

    Three tokens with the mask 0 1 1 are two spans: the first token, and the other two.

    Args:
        ids: int[L].
        loss_mask: u8[L], 0/1, unshifted.
    """
    cuts = np.flatnonzero(np.diff(loss_mask.astype(np.int8))) + 1
    out = []
    for part, mask in zip(np.split(ids, cuts), np.split(loss_mask, cuts), strict=True):
        text = tokenizer.decode(part)
        out.append(MaskedSpan(text=text, trained=bool(mask[0]), tokens=len(part)))
    return out


def coloured(parts: list[MaskedSpan], *, colour: bool) -> str:
    """Join spans to one text: trained ones in green and the rest dim, or trained ones between ⟦ ⟧ without colours.

    Nothing in the texts can colour or bracket them in another way.
    """
    texts = [printable_text(part.text) for part in parts]
    if not colour:
        texts = [text.replace("⟦", r"\u27e6").replace("⟧", r"\u27e7") for text in texts]
        return "".join(f"⟦{text}⟧" if part.trained else text for part, text in zip(parts, texts, strict=True))
    return "".join(
        click.style(text, fg="green", bold=True) if part.trained else click.style(text, dim=True)
        for part, text in zip(parts, texts, strict=True)
    )


def show(directory: Path, split: str, row: int, *, colour: bool, as_json: bool) -> str:
    """Format one sequence of a shard directory, for people or as JSON.

    Raises:
        UsageError: there is no such split.
        IndexError: there is no such row.
        DataError: the directory is not complete, or damaged.
    """
    shards = ShardDirectory(directory)
    opened = shards.split(split)
    tokens, loss_mask = opened[row]
    tokenizer = Tokenizer(str(directory / "tokenizer"))
    parts = masked_spans(tokens, loss_mask, tokenizer)
    source, record, turns = _origin(directory, split, row, shards)
    if as_json:
        value = {
            "split": split,
            "row": row,
            "source": source,
            "record": record,
            **({} if turns is None else {"turns": turns}),
            "tokens": tokens.tolist(),
            "loss_mask": loss_mask.tolist(),
            "text": [{"text": part.text, "trained": part.trained} for part in parts],
        }
        return json.dumps(value, ensure_ascii=False)
    head = f"{printable(split)} row {row} of {len(opened):,}: {printable(source)}, record {record}; "
    head += f"{len(tokens):,} tokens, {int(loss_mask.sum()):,} carry loss"
    if turns:
        head += f", of turn{'s' if len(turns) > 1 else ''} {', '.join(map(str, turns))}"
    return f"{click.style(head, bold=True) if colour else head}\n{coloured(parts, colour=colour)}"


def _origin(directory: Path, split: str, row: int, shards: ShardDirectory) -> tuple[str, int, list[int] | None]:
    """Look up the source file of a row, the number of its record there, and the turns that it trains, if it says so.

    Raises:
        DataError: the file of rows is damaged.
    """
    import pyarrow as pa

    shard, inner = shards.split(split).locate(row)
    rows = directory / split / "rows" / f"{shard.info.name}.parquet"
    try:
        table = read_rows(rows, ["source", "record"], root=directory, count=shard.info.sequences)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{rows}: cannot be read ({first_line(error)}); see 'sft-preprocess verify'") from None
    one = table.slice(inner, 1).to_pylist()[0]
    return one["source"], one["record"], one.get(TURNS)
