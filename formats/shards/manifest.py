"""`manifest.json`: what a shard directory holds, written last, so that its presence means complete.

Nothing in it depends on the clock, on the machine or on the number of workers. It holds a hash of every other file,
and one of its own contents, so that no byte of a shard directory can change unnoticed. The fields of the dataclasses
are the keys of the JSON, in their order; `notes` alone is written flat.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import folder_inside, is_inside, read_inside
from sft_shards.formats.shards.files import atomic_write, fsync_directory, json_bytes
from sft_shards.formats.shards.schema import SchemaError, build, parse

SCHEMA = 1
NAME = "manifest.json"
TEMPLATE = "template"
"""The folder of a template that came from a file."""
TEMPLATES = "additional_chat_templates"
"""The folder of a tokenizer's other templates, below its own."""
UNSAID = ("arguments", "file", "tools_source", "tools_sha256")
"""Fields of the template that are written only where they are set."""
SIGNATURE = f"{NAME}.sig"
"""A signature over the manifest, the one file of a directory that the manifest does not name."""
REJECTS = "rejects.jsonl"
SPLITS = ("train", "valid", "test")
SHARD_FILES = ("tokens/{}.bin", "tokens/{}.idx", "loss_mask/{}.bin", "loss_mask/{}.idx", "rows/{}.parquet")
"""The files of a shard below its split's folder, by its name."""
_SHARD_NAME = re.compile(r"[0-9]{5,18}", re.ASCII)
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One file of a shard."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One shard of a split: `tokens/NAME.{bin,idx}`, `loss_mask/NAME.{bin,idx}`, `rows/NAME.parquet`."""

    name: str
    """The shard's number within its split, zero-padded to five digits or more: "00000"."""
    sequences: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sequence."""
    files: dict[str, FileInfo]
    """By path below the split's folder, with forward slashes."""


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
        """Sum up the shards of a split."""
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
    """`vocabulary_hash` of its vocabulary."""
    dtype: str
    """numpy name of the dtype that token ids are stored in: "uint16" or "int32"."""
    eos_id: int
    pad_id: int
    """The padding id; the EOS id where the tokenizer has none (the loss mask does not depend on it)."""
    bos_id: int | None
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file in `tokenizer/`."""


def vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    """Hash a vocabulary: SHA-256 over its sorted (token, id) pairs. Equal hashes mean that ids mean the same tokens."""
    pairs = {token: vocabulary[token] for token in sorted(vocabulary)}
    # All pairs at once: a line for each, its token as JSON. Vocabularies have 100,000s of them.
    lines = json.dumps(pairs, separators=("\n", "\t"))[1:-1]
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """One part of a source file: what one task read, and the shards that it became."""

    begin: int
    """First byte of the part; first row group or record batch of a table."""
    end: int
    """One behind the last."""
    sha256: str
    """Hash of the bytes [begin, end) of the file."""
    records: int
    notes: dict[str, int]
    """What the task counted, by the names of `NOTES`."""
    shards: dict[str, str]
    """Name of the shard by split, for each split in which the part has sequences."""


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """One input file."""

    path: str
    """As it was named in the call, or as it was found in a folder that was; "-" for standard input."""
    kind: str
    """Kind of file: `jsonl`, `json`, `object`, `parquet`, `arrow` or `csv`."""
    compression: str
    """`gzip`, `zstd`, or nothing."""
    format: str
    """Name of the record format."""
    bytes: int
    sha256: str
    """Hash of the file's bytes where it is one part, else composed from the hashes of its parts."""
    records: int
    parts: tuple[PartInfo, ...] = ()
    """In the order of the file."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of its own, which came before the job's, by name; not written where there are none."""
    unread: tuple[str, ...] = ()
    """Keys of its messages that nothing reads, each with how many of the first records have it; not written where
    there are none."""

    @property
    def weight(self) -> Fraction:
        """How often the trainer shows it for each time that it shows a source without a weight, above 0.

        Raises:
            DataError: its `weight` is no such number.
        """
        value = self.options.get("weight", 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"source {self.path}: its weight {value!r:.60} is no number above 0; make the shards again")
        return Fraction(str(value))

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object that the manifest holds."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("options", "unread")}


@dataclass(frozen=True, kw_only=True)
class TemplateInfo:
    """The chat template that made the texts."""

    name: str
    """`tokenizer`, the name of a template, or the bare name of a file."""
    sha256: str
    """Hash of its text."""
    header: str = ""
    """The generation prompt, "" where the template writes none."""
    stop: tuple[str, ...] = ()
    """Tokens that end an assistant's turn."""
    source: str | None = None
    """Its Jinja text."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """What the job gave it beside every conversation, by name; not written where there are none."""
    file: str = ""
    """Name of its copy in `template/`, where it came from a file; else "", and not written."""
    tools_source: str = ""
    """Text of the tokenizer's other template, for conversations that offer tools; not written where there is none."""
    tools_sha256: str = ""
    """Hash of that text."""

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object that the manifest holds."""
        found = asdict(self)
        return {name: value for name, value in found.items() if value or name not in UNSAID}

    def copy_file(self, directory: Path, *, scratch: Path) -> None:
        """Write `DIR/template/FILE` where the template came from a file, so that the job can be repeated."""
        if self.file:
            folder = folder_inside(directory, TEMPLATE)
            with atomic_write(folder / self.file, scratch=scratch) as copy:
                copy.write((self.source or "").encode("utf-8"))
            fsync_directory(folder)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Records by what became of them: `read == written + sum(rejected.values())`."""

    read: int
    written: int
    rejected: dict[str, int]
    """Records left out by reason; the reasons of this package are listed in `REASONS`."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What else a job counted, and how its token ids were made."""

    engine: str = ""
    """How the backend that gives the token ids was chosen (and, on disk, the key of that sentence)."""
    counts: dict[str, int] = field(default_factory=dict)
    """By the names of `NOTES`, those that are not 0."""

    def as_dict(self) -> dict[str, str | int]:
        """Write both into one JSON object, as `notes` of the manifest is."""
        return {**({"engine": self.engine} if self.engine else {}), **self.counts}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of `manifest.json`."""

    config: Mapping[str, Json]
    """The resolved configuration of the job; `{"merged": [...]}` with those of all directories after a merge."""
    sources: tuple[SourceInfo, ...]
    """In the order of the inputs."""
    tokenizer: TokenizerInfo
    template: TemplateInfo
    splits: dict[str, SplitInfo]
    """By name, those that have sequences, in the order of `SPLITS`."""
    counts: Counts
    notes: Notes
    versions: dict[str, str]
    """Version of each library that the bytes may depend on."""
    rejects: FileInfo | None = None
    """`rejects.jsonl`."""
    schema: int = SCHEMA

    @property
    def unrolled(self) -> bool:
        """Whether a record may have several sequences (`--rewritten-turns unroll`)."""
        merged = self.config.get("merged")
        configs = merged if isinstance(merged, Sequence) and not isinstance(merged, str) else [self.config]
        return any(isinstance(one, Mapping) and one.get("rewritten_turns") == "unroll" for one in configs)

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object that `write` writes, without its hash."""
        sources = [source.as_dict() for source in self.sources]
        more = {"sources": sources, "template": self.template.as_dict(), "notes": self.notes.as_dict()}
        return {"schema": self.schema, **asdict(self), **more}

    def write(self, directory: Path, *, scratch: Path | None = None) -> None:
        """Write `DIR/manifest.json` atomically, by way of a temporary file in `scratch`."""
        with atomic_write(directory / NAME, scratch=scratch) as file:
            file.write(_with_hash(self.as_dict()))

    def file_names(self) -> set[str]:
        """List every file of the directory by its path, but a signature."""
        shards = {
            f"{split}/{path}" for split, info in self.splits.items() for shard in info.shards for path in shard.files
        }
        template = {f"{TEMPLATE}/{self.template.file}"} if self.template.file else set()
        return {NAME, REJECTS} | {f"tokenizer/{name}" for name in self.tokenizer.files} | template | shards

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read `DIR/manifest.json`.

        Raises:
            DataError: it is not there, not JSON, of another schema version, lacks a part, or was changed since it was
                written.
        """
        path = directory / NAME
        if not directory.is_dir():
            raise DataError(f"{directory}: no such shard directory; make it with 'sft-preprocess run'")
        try:
            text = read_inside(directory, NAME)
        except FileNotFoundError:
            raise DataError(
                f"{directory}: no {NAME}, so this is not a complete shard directory; "
                "finish it with the same 'sft-preprocess run' that began it"
            ) from None
        try:
            raw = parse(text)
            schema = raw["schema"]
        except (SchemaError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a manifest ({error}); make the shards again") from None
        if schema != SCHEMA or isinstance(schema, bool):
            raise DataError(
                f"{path}: schema version {schema!r:.60}, this release reads {SCHEMA}; use the release that wrote it"
            )
        bare = {key: value for key, value in raw.items() if key != "sha256"}
        try:
            as_written = _with_hash(bare) == text
        except (UnicodeEncodeError, RecursionError):  # half a surrogate pair, or nesting that cannot be written
            as_written = False
        if not as_written:
            raise DataError(f"{path}: not as it was written (its own hash differs); make the shards again")
        try:
            manifest = build(cls, {**bare, **_notes(raw)})
            check_names(manifest)
        except SchemaError as error:
            raise DataError(
                f"{path}: a part is missing or of the wrong form ({error}; schema version {SCHEMA}{_release(raw)}); "
                "make the shards again"
            ) from None
        return manifest


def check_names(manifest: Manifest) -> None:
    """Check that a manifest names only files that a shard directory has, so that no name leads out of it.

    Raises:
        SchemaError: a name of a split, a shard or a file is not what this package writes, or a number is negative.
    """
    for split, info in manifest.splits.items():
        place = f"splits.{split}"
        if split not in SPLITS:
            raise SchemaError(f"splits: unknown split {split!r:.60}")
        names = {shard.name: shard for shard in info.shards}
        if len(names) != len(info.shards):
            raise SchemaError(f"{place}: two shards have one name")
        for name, shard in names.items():
            if not _SHARD_NAME.fullmatch(name):
                raise SchemaError(f"{place}: {name!r:.60} is not the name of a shard")
            expected = [one.format(name) for one in SHARD_FILES]
            if not set(expected[:4]) <= set(shard.files) <= set(expected):
                raise SchemaError(f"{place}: the files of shard {name} are not {', '.join(expected)}")
            if min(shard.sequences, shard.tokens, shard.trained_tokens, shard.longest) < 0:
                raise SchemaError(f"{place}: shard {name} has a negative number")
    check_tokenizer_names(manifest.tokenizer.files, "tokenizer.files")
    if manifest.template.file:
        check_file_names([manifest.template.file], "template.file")
        check_source(manifest.template.source, manifest.template.sha256, "template.source")
    if not 0 < manifest.tokenizer.vocab_size < 1 << 31:  # ids are stored as uint16 or int32
        raise SchemaError(f"tokenizer.vocab_size is {manifest.tokenizer.vocab_size:.3g}")
    known = {split: {shard.name for shard in info.shards} for split, info in manifest.splits.items()}
    for source in manifest.sources:
        for part in source.parts:
            for split, name in part.shards.items():
                if name not in known.get(split, ()):
                    raise SchemaError(f"sources: a part of {source.path!r:.60} names a shard that is not there")


def check_file_names(names: Iterable[object], place: str) -> None:
    """Check that names are those of files in one folder, without folders of their own or control characters.

    Raises:
        SchemaError: one is not; the message begins with `place`.
    """
    for name in names:
        if not isinstance(name, str) or not is_inside(name) or "/" in name or not name.isprintable():
            raise SchemaError(f"{place}: {name!r:.60} is not the name of a file")


def check_tokenizer_names(names: Iterable[str], place: str) -> None:
    """Check that names are those of files in a tokenizer's folder, or of its other templates one folder below.

    Raises:
        SchemaError: one is not; the message begins with `place`.
    """
    check_file_names((name.removeprefix(f"{TEMPLATES}/") for name in names), place)


def check_source(source: str | None, sha256: str, place: str) -> None:
    """Check that a template's text, where there is one, is the one that was hashed.

    Raises:
        SchemaError: it is not; the message begins with `place`.
    """
    if source is not None and hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest() != sha256:
        raise SchemaError(f"{place}: its SHA-256 is not the one that is named")


def _notes(raw: dict[str, Any]) -> dict[str, Any]:
    """Undo `Notes.as_dict`: give the notes of a manifest as an object with the fields of `Notes`."""
    notes = raw.get("notes")
    if not isinstance(notes, dict):
        return {}
    counts = {name: value for name, value in notes.items() if name != "engine"}
    return {"notes": {"engine": notes.get("engine", ""), "counts": counts}}


def _release(raw: dict[str, Any]) -> str:
    """Name the release that wrote a manifest, for messages, as far as it can be read."""
    versions = raw.get("versions")
    release = versions.get("sft-shards") if isinstance(versions, dict) else None
    return f", written by sft-shards {release:.20}" if isinstance(release, str) and release.isprintable() else ""


def _with_hash(value: dict[str, Any]) -> bytes:
    """Give the bytes of the file: the manifest's contents, then the SHA-256 of those contents as JSON bytes."""
    return json_bytes({**value, "sha256": hashlib.sha256(json_bytes(value)).hexdigest()})
