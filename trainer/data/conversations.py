"""`sft_shards.open`: a shard directory in Python, its splits as sequences of token ids and loss masks.

    shards = sft_shards.open("shards")
    tokens, loss_mask = shards["train"][0]

Nothing is read before it is asked for, and tokens and masks are views of the memory-mapped files. What is heavy is
imported where it is needed: pyarrow for `record`, tokenizers for `text`, datasets and torch for the methods of these
names. A view can be pickled: it is opened again by its path, and carries no tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import UsageError
from sft_shards.formats.masked_text import MaskedSpan, masked_spans
from sft_shards.formats.shards import Manifest, ShardDirectory, Split
from sft_shards.formats.shards.packing import SEED
from sft_shards.formats.shards.rows import Origin, Origins
from sft_shards.formats.shards.selection import content
from sft_shards.formats.terminal import printable

if TYPE_CHECKING:
    from datasets import Dataset

    from sft_shards.formats.decoding import Decoder
    from sft_shards.trainer.data.torch_packs import Packs

Pair = tuple[NDArray[Any], NDArray[np.uint8]]
"""Token ids [L] and unshifted loss mask [L] of one conversation."""
UNTRAINED = -100
"""The label that losses of torch and of Hugging Face pass over."""


class Shards:
    """A shard directory: its splits by name. `sft_shards.open` makes it.

    Attributes:
        directory: what the trainer reads it by.
        path: where it lies.
        manifest: what `manifest.json` says.

    Raises:
        DataError: it is no complete shard directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.directory = ShardDirectory(path)
        self.path: Path = self.directory.path
        self.manifest: Manifest = self.directory.manifest
        self._opened: dict[str, Conversations] = {}

    def __getitem__(self, split: str) -> Conversations:
        """Open a split; UsageError if there is none of that name, DataError if a file is damaged."""
        if split not in self._opened:
            self._opened[split] = Conversations(self, self.directory.split(split))
        return self._opened[split]

    def __contains__(self, split: object) -> bool:
        return split in self.manifest.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.splits)

    def __len__(self) -> int:
        return len(self.manifest.splits)

    def __repr__(self) -> str:
        names = f"tokenizer {self.manifest.tokenizer.name}, template {self.manifest.template.name}"
        rows = [
            f"  {name:5}  {info.sequences:,} conversations, {info.tokens:,} tokens, {info.trained_tokens:,} trained "
            f"({info.trained_tokens / max(1, info.tokens):.1%}), longest {info.longest:,}"
            for name, info in self.manifest.splits.items()
        ]
        return "\n".join([printable(f"Shards({str(self.path)!r}): {names}"), *rows])

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.path,)

    @cached_property
    def decoder(self) -> Decoder:
        """What decodes ids, by the tokenizer that lies in the directory; DataError if it cannot be read."""
        from sft_shards.formats.decoding import Decoder

        return Decoder(self.directory)


class Conversations(Sequence[Pair]):
    """The conversations of a split, or a slice of them, in the order in which they are stored.

    Attributes:
        shards: the directory that they are in.
        rows: which rows of the split they are.
    """

    def __init__(self, shards: Shards, split: Split, rows: range | None = None) -> None:
        self.shards = shards
        self.rows = range(len(split)) if rows is None else rows
        self._split = split
        self._origins = Origins(shards.path, split)

    @property
    def name(self) -> str:
        """The split's name."""
        return self._split.name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Conversations: ...
    def __getitem__(self, index: int | slice) -> Pair | Conversations:
        """Give token ids [L] and loss mask u8[L] of one: entry i of the mask says if token i is a trained target.

        A slice gives a view of the conversations in it. IndexError if there is no such conversation.
        """
        if isinstance(index, slice):
            return Conversations(self.shards, self._split, self.rows[index])
        return self._split[self._row(index)]

    def __repr__(self) -> str:
        part = "" if self.is_whole else f" of {len(self._split):,}"
        return printable(f"Conversations({self.name} of {str(self.shards.path)!r}: {len(self):,}{part})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.shards, self.name, self.rows)

    @property
    def is_whole(self) -> bool:
        """Whether these are all conversations of the split, in their order."""
        return self.rows == range(len(self._split))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each conversation, int32[len(self)]."""
        return self._split.lengths()[self.rows.start : self._stop : self.rows.step] if self.rows else _NONE

    @property
    def _stop(self) -> int | None:
        return self.rows.stop if self.rows.stop >= 0 else None

    def text(self, index: int) -> str:
        """Decode a conversation, control tokens included.

        Raises:
            DataError: the directory holds no tokenizer that can be read.
        """
        return self.shards.decoder.decode(self[index][0])

    def spans(self, index: int) -> list[MaskedSpan]:
        """Decode a conversation in spans that carry loss, or do not. Raises what `text` raises."""
        return masked_spans(*self[index], self.shards.decoder)

    def origin(self, index: int) -> Origin:
        """Look up the record that a conversation came from.

        Raises:
            DataError: the file of rows is damaged.
        """
        return self._origins[self._row(index)]

    def torch(
        self,
        *,
        seq_length: int,
        batching: str = "packed",
        overlong: str = "truncate",
        seed: int = SEED,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Packs:
        """Give the samples that `sft-train` trains on, as a map-style data set of torch tensors.

        Weights of sources are left out of account: each conversation stands in one sample.

        Args:
            seq_length: positions of a sample.
            batching: "packed" fills a sample with conversations, "padded" gives each its own.
            overlong: "truncate" cuts a conversation of more than `seq_length` + 1 tokens, "drop" leaves it out.
            seed: of the shuffling; Megatron's default.
            cache_dir: folder of cached pack plans (default: the one of `sft-train`).

        Raises:
            UsageError: these are a slice of the split, or a value is unknown.
            DataError: a shard is damaged, or the cache cannot be written.
        """
        from sft_shards.trainer.data.torch_packs import Packs

        if not self.is_whole:
            raise UsageError(f"{self!r}: a slice has no pack plan; take samples of the whole split, and slice those")
        return Packs(
            self.shards.directory,
            self.name,
            seq_length=seq_length,
            batching=batching,
            overlong=overlong,
            seed=seed,
            cache_dir=cache_dir,
        )

    def to_datasets(self) -> Dataset:
        """Copy to a `datasets.Dataset` with the columns `input_ids`, `labels`, `source` and `record`.

        Labels are the ids that carry loss, and -100 elsewhere; models of transformers shift them.
        """
        from datasets import Dataset

        data: Dataset = Dataset.from_generator(
            _rows, gen_kwargs={"conversations": self, "identity": content(self._split)}
        )
        return data

    @property
    def split(self) -> Split:
        """The split as the trainer reads it."""
        return self._split

    def _row(self, index: int) -> int:
        try:
            return self.rows[index]
        except IndexError:
            raise IndexError(f"{index} is outside 0..{len(self) - 1} of {self!r}") from None


_NONE = np.zeros(0, dtype=np.int32)


def _reopened(shards: Shards, name: str, rows: range) -> Conversations:
    return Conversations(shards, shards[name].split, rows)


def _rows(conversations: Conversations, identity: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of `to_datasets`; `identity` is there because `datasets` names its copy by the arguments."""
    del identity
    for index, (tokens, loss_mask) in enumerate(conversations):
        origin = conversations.origin(index)
        labels = np.where(loss_mask == 1, tokens.astype(np.int32), np.int32(UNTRAINED))
        yield {
            "input_ids": tokens.astype(np.int32),
            "labels": labels,
            "source": origin.source,
            "record": origin.record,
        }
