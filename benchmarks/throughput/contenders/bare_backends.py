"""Floors: a tokenizer backend alone, over rendered texts that are in memory already; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.throughput.contenders.contender import Contender, Sequences, Settings

BATCH_CHARACTERS = 1 << 18
"""Characters that a backend is given at once."""


class BareBackend(Contender):
    """Encode batches of texts; a subclass says how."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.texts: dict[Path, list[list[str]]] = {}
        self.made: dict[Path, list[tuple[NDArray[Any], NDArray[Any]]]] = {}

    def encode(self, batch: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids of all texts one after the other, and lengths in tokens."""
        raise NotImplementedError

    def prepare(self, source: Path, target: Path) -> None:  # noqa: D102
        self.texts[target] = list(batches(source / "text.jsonl"))

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        self.made[target] = [self.encode(batch) for batch in self.texts.pop(target)]

    def read(self, target: Path) -> Sequences:  # noqa: D102
        ids, lengths = zip(*self.made[target], strict=True)
        return Sequences(lengths=np.concatenate(lengths), ids=np.concatenate(ids).astype(np.int64), mask=None)


class HuggingFaceTokenizers(BareBackend):
    """`encode_batch_fast` of Hugging Face's tokenizers."""

    def __init__(self, settings: Settings) -> None:
        from tokenizers import Tokenizer

        super().__init__(settings)
        self.backend = Tokenizer.from_file(str(Path(settings.tokenizer) / "tokenizer.json"))

    def encode(self, batch: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:  # noqa: D102
        rows = self.backend.encode_batch_fast(batch, add_special_tokens=False)
        ids = [np.asarray(row.ids, dtype=np.int32) for row in rows]
        return np.concatenate(ids), np.asarray([len(one) for one in ids])


class Fastokens(BareBackend):
    """`encode_batch_flat` of fastokens."""

    def __init__(self, settings: Settings) -> None:
        import fastokens

        super().__init__(settings)
        self.backend = fastokens.Tokenizer.from_file(str(Path(settings.tokenizer) / "tokenizer.json"))

    def encode(self, batch: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:  # noqa: D102
        ids, offsets = self.backend.encode_batch_flat(batch)
        return np.frombuffer(ids, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))


def batches(path: Path) -> Iterator[list[str]]:
    """The texts of a file, about `BATCH_CHARACTERS` at a time."""
    batch: list[str] = []
    size = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            batch.append(json.loads(line)["text"])
            size += len(batch[-1])
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
