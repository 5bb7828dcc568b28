"""`manifest.json`: what a shard directory holds, written last, so that its presence means complete.

Nothing in it depends on the clock, on the machine or on the number of workers. It holds a hash of every other file,
and one of itself, so that no byte of a shard directory can change without being noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.files import atomic_write, json_bytes

SCHEMA = 1
NAME = "manifest.json"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One file of a shard."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One shard of a split: `tokens/NAME.{bin,idx}`, `loss_mask/NAME.{bin,idx}`, `rows/NAME.parquet`."""

    name: str
    """Zero-padded number, "00000"."""
    sequences: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sequence."""
    files: dict[str, FileInfo]
    """By path below the split, with forward slashes."""


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """The shards of a split and their sums."""

    sequences: int
    tokens: int
    trained_tokens: int
    longest: int
    shards: tuple[ShardInfo, ...]

    @classmethod
    def of(cls, shards: tuple[ShardInfo, ...]) -> SplitInfo:
        """A split from its shards."""
        return cls(
            sequences=sum(shard.sequences for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
            trained_tokens=sum(shard.trained_tokens for shard in shards),
            longest=max((shard.longest for shard in shards), default=0),
            shards=shards,
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerInfo:
    """The tokenizer that made the ids."""

    name: str
    """As it was named in the call."""
    vocab_size: int
    """`len(tokenizer)`: one more than the largest id, added tokens included."""
    vocab_sha256: str
    """Hash of the sorted (token, id) pairs: two tokenizers with the same one give ids the same meaning."""
    dtype: str
    """numpy name of the stored token dtype."""
    eos_id: int
    pad_id: int
    """The padding id; the EOS id where the tokenizer has none (the mask never depends on it)."""
    bos_id: int | None
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file in `tokenizer/`."""


def vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    """SHA-256 over the sorted (token, id) pairs: two tokenizers with the same one give ids the same meaning."""
    # What json.dumps comes to for a text; a vocabulary has hundreds of thousands.
    lines = [f"{encode_basestring_ascii(token)}\t{number}" for token, number in sorted(vocabulary.items())]
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Records: `read == written + sum(rejected.values())`."""

    read: int
    written: int
    rejected: dict[str, int]
    """By reason."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of `manifest.json`."""

    config: dict[str, Any]
    """The resolved configuration of the job."""
    sources: tuple[dict[str, Any], ...]
    """Per source file: path as given, kind, format, bytes, sha256, records, and its parts with their shards."""
    tokenizer: TokenizerInfo
    template: dict[str, Any]
    """`name`, `sha256` of its text, and `stop`: the tokens that end an assistant turn."""
    splits: dict[str, SplitInfo]
    counts: Counts
    notes: dict[str, Any]
    """Whatever else the job counted, such as tokens that straddle a boundary."""
    versions: dict[str, str]
    rejects: FileInfo | None = None
    """`rejects.jsonl`."""
    schema: int = SCHEMA

    def write(self, directory: Path, *, scratch: Path | None = None) -> None:
        """Write `DIR/manifest.json` atomically, by way of a temporary file in `scratch`."""
        with atomic_write(directory / NAME, scratch=scratch) as file:
            file.write(_with_hash({"schema": self.schema, **asdict(self)}))

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read `DIR/manifest.json`.

        Raises:
            DataError: not there, not JSON, of another schema version, without a part it must have, or changed by
                as much as a byte since it was written.
        """
        path = directory / NAME
        if not directory.is_dir():
            raise DataError(f"{directory}: no such shard directory; make it with 'sft-preprocess run'")
        if not path.is_file():
            raise DataError(
                f"{directory}: no {NAME}, so this is not a complete shard directory; "
                "finish it with the same 'sft-preprocess run' that began it"
            )
        try:
            text = path.read_bytes()
            raw = json.loads(text.decode("utf-8"))
            schema = raw["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a manifest ({error}); make the shards again") from None
        if schema != SCHEMA:
            raise DataError(
                f"{path}: schema version {schema}, this release reads {SCHEMA}; use the release that wrote it"
            )
        if _with_hash({key: value for key, value in raw.items() if key != "sha256"}) != text:
            raise DataError(f"{path}: not as it was written (its own hash differs); make the shards again")
        try:
            return cls(
                config=raw["config"],
                sources=tuple(raw["sources"]),
                tokenizer=TokenizerInfo(**raw["tokenizer"]),
                template=raw["template"],
                splits={name: _split(value) for name, value in raw["splits"].items()},
                counts=Counts(**raw["counts"]),
                notes=raw["notes"],
                versions=raw["versions"],
                rejects=None if raw["rejects"] is None else FileInfo(**raw["rejects"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: a part is missing or of the wrong form ({error}); make the shards again"
            ) from None


def _with_hash(value: dict[str, Any]) -> bytes:
    """The bytes of a manifest: its contents, then the SHA-256 of those contents written in the same way."""
    return json_bytes({**value, "sha256": hashlib.sha256(json_bytes(value)).hexdigest()})


def _split(raw: dict[str, Any]) -> SplitInfo:
    shards = tuple(
        ShardInfo(**{**shard, "files": {path: FileInfo(**info) for path, info in shard["files"].items()}})
        for shard in raw["shards"]
    )
    return SplitInfo(**{**raw, "shards": shards})
