"""`inspect`: sequences and packs, decoded, with what carries loss marked as a trained text.

`masked_spans` and `coloured` are the one way in which a mask is shown: `preview`, `inspect` and `report` use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import UsageError
from sft_shards.formats.masked_text import masked_spans
from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.packing import SEED
from sft_shards.formats.shards.rows import Origin, Origins
from sft_shards.formats.terminal import printable, quoted
from sft_shards.preprocess.directories.masked_lines import as_object, coloured, token_lines
from sft_shards.preprocess.directories.packs import PackedSample, packed_sample
from sft_shards.preprocess.directories.rows import RowQuery, chosen_rows
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


class Viewer:
    """Shows what lies in one split of a shard directory.

    Args:
        colour: show what carries loss in green as well.
        tokens: show a line for each token in place of the text.

    Raises:
        UsageError: there is no such split.
        DataError: the directory is not complete, or damaged.
    """

    def __init__(self, directory: Path, split: str, *, colour: bool = False, tokens: bool = False) -> None:
        self.directory = directory
        self._shards = ShardDirectory(directory)
        self.split = self._shards.split(split)
        self.tokenizer = Tokenizer(str(directory / "tokenizer"))
        self.origins = Origins(directory, self.split)
        self.colour = colour
        self.tokens = tokens

    def rows(self, query: RowQuery) -> Iterator[int]:
        """Yield the rows that a query asks for.

        Raises:
            UsageError: there is none, or the query is wrong.
        """
        found = False
        try:
            for row in chosen_rows(self.split, self.origins, query, self.tokenizer.decode):
                found = True
                yield row
        except IndexError as error:
            raise UsageError(f"{self.directory}: {error}") from None
        if not found:
            raise UsageError(f"{self.directory}: no row of split {self.split.name} is as asked for")

    def row(self, row: int, *, several: bool = False) -> Iterator[str]:
        """Give one sequence in lines for people.

        Args:
            several: others follow, so that its lines stand behind a bar.
        """
        ids, loss_mask = self.split[row]
        origin = self.origins[row]
        yield self._head(
            f"{self.split.name} row {row} of {len(self.split):,}: {_named(origin)}; "
            f"{len(ids):,} tokens, {int(loss_mask.sum()):,} carry loss{_turns(origin)}"
        )
        yield from self._body(ids, loss_mask, bar=several)

    def row_as_json(self, row: int) -> str:
        """Give one sequence as JSON."""
        return json.dumps({"split": self.split.name, **self._object(row, *self.split[row])}, ensure_ascii=False)

    def sample(self, number: int, *, seq_length: int, overlong: str, seed: int | None = None) -> PackedSample:
        """Return a pack; see `packed_sample`.

        Args:
            seed: of the trainer (default: `packing.SEED`).
        """
        seed = SEED if seed is None else seed
        return packed_sample(self._shards, self.split, number, seq_length=seq_length, overlong=overlong, seed=seed)

    def pack(self, sample: PackedSample) -> Iterator[str]:
        """Give a pack in lines for people, segment after segment."""
        count = f"{len(sample.segments):,} conversation{'s' if len(sample.segments) > 1 else ''}"
        yield self._head(
            f"{self.split.name} pack {sample.number} of {sample.packs:,}: {count}, "
            f"{sample.positions:,} of {sample.seq_length:,} positions, {sample.trained_tokens:,} carry loss"
        )
        for place, segment in enumerate(sample.segments):
            cut = f", {segment.cut:,} tokens cut off" if segment.cut else ""
            yield self._head(
                f"segment {place}: positions {segment.begin} to {segment.begin + segment.positions - 1}, row "
                f"{segment.row}: {_named(self.origins[segment.row])}; {segment.trained_tokens:,} carry loss{cut}"
            )
            yield from self._body(segment.tokens, segment.loss_mask, bar=True)

    def pack_as_json(self, sample: PackedSample) -> str:
        """Give a pack as JSON."""
        segments = [
            {
                "begin": segment.begin,
                "positions": segment.positions,
                "cut": segment.cut,
                **self._object(segment.row, segment.tokens, segment.loss_mask),
            }
            for segment in sample.segments
        ]
        head = {"split": self.split.name, "pack": sample.number, "packs": sample.packs, "seq_length": sample.seq_length}
        counts = {"positions": sample.positions, "trained_tokens": sample.trained_tokens}
        return json.dumps({**head, **counts, "segments": segments}, ensure_ascii=False)

    def _head(self, text: str) -> str:
        return click.style(printable(text), bold=True) if self.colour else printable(text)

    def _body(self, ids: NDArray[Any], loss_mask: NDArray[np.uint8], *, bar: bool) -> Iterator[str]:
        if self.tokens:
            yield from token_lines(ids, loss_mask, self.tokenizer, colour=self.colour)
        else:
            text = coloured(masked_spans(ids, loss_mask, self.tokenizer), colour=self.colour)
            yield quoted(text) if bar else text

    def _object(self, row: int, ids: NDArray[Any], loss_mask: NDArray[np.uint8]) -> dict[str, Any]:
        origin = self.origins[row]
        return {
            "row": row,
            "source": origin.source,
            "record": origin.record,
            **({} if origin.turns is None else {"turns": origin.turns}),
            **as_object(ids, loss_mask, self.tokenizer),
        }


def _named(origin: Origin) -> str:
    return f"{origin.source}, record {origin.record}"


def _turns(origin: Origin) -> str:
    if not origin.turns:
        return ""
    return f", of turn{'s' if len(origin.turns) > 1 else ''} {', '.join(map(str, origin.turns))}"
