"""The configuration of a job: everything that decides about the bytes it writes, and nothing else.

The number of workers, the engine and the output folder are not in here, because they change no byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.records import FieldMap
from sft_shards.formats.records import formats as record_formats
from sft_shards.formats.template_arguments import checked
from sft_shards.formats.templates import REWRITTEN_TURNS, TRAIN_ON, TrainOn
from sft_shards.preprocess.source_options import SourceOptions

AUTO = "auto"
STRADDLE = ("train", "skip", "split")
"""What happens to a token that holds characters on both sides of the start of a trained span."""
OVERLONG = ("drop", "truncate", "turns", "tail", "error")
"""What happens to a conversation of more than `max_length` tokens; see `pipeline.truncation`."""
BACKENDS = (AUTO, "fastokens", "hf")
"""What gives the token ids; `auto` takes fastokens for inputs of some size, where it agrees with Hugging Face's."""


UNSAID = ("revision", "rewritten_turns", "max_record_bytes", "template_arg", "sources")
"""Fields that the plan and the manifest name only where they have another value than the default."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a job does. Each field has the name of the option that sets it.

    Raises:
        UsageError: a value is unknown or contradicts another.
    """

    inputs: tuple[str, ...]
    """Files, globs, folders, names on the Hub, or "-" for standard input; the paths of `sources`, if there are any."""
    tokenizer: str
    """A folder, or a name on the Hub."""
    revision: str | None = None
    """Commit, tag or branch of the tokenizer on the Hub; None: the newest, or the tokenizer is a folder.

    In a plan and in the manifest it is the commit that was fetched.
    """
    format: str = AUTO
    template: str = AUTO
    """A name, or a file; in a plan and in the manifest a file's bare name, its text standing there too."""
    template_arg: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """What the template is given beside the conversation, by name."""
    train_on: str = "all"
    train_reasoning: bool = True
    train_tool_calls: bool = True
    rewritten_turns: str = AUTO
    """What becomes of turns that the template writes otherwise than inference meets them; see
    `formats.templates.trained_texts`."""
    straddle: str = "train"
    allow_control_tokens: bool = False
    max_length: int | None = None
    """Most tokens of a sequence; None keeps every length (the trainer packs for any)."""
    overlong: str = "drop"
    valid_fraction: float = 0.0
    test_fraction: float = 0.0
    field: Mapping[str, str] = dataclasses.field(default_factory=dict)
    map_role: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_record_bytes: int = 4 << 20
    """Records of more bytes are left out: a JSON text as it stands in the file, a row of CSV likewise, a row of a table
    as its values take in memory. A worker needs a multiple of this (docs/scaling.md)."""
    shard_tokens: int = 1 << 24
    """Tokens that a shard holds, roughly: inputs are cut by bytes, four to a token."""
    dedup: bool = False
    """Whether all but the first of equal conversations are left out."""
    tokenizer_engine: str = "auto"
    verify_every: int = 10_000
    """Of the records that took the batch path, one in so many is compared with the reference path.

    0: none but the first.
    """
    trust_remote_code: bool = False
    sources: tuple[SourceOptions, ...] = ()
    """The inputs, where some have options of their own; the manifest names them with each file too."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("--train-on", self.train_on, TRAIN_ON),
            ("--rewritten-turns", self.rewritten_turns, REWRITTEN_TURNS),
            ("--straddle", self.straddle, STRADDLE),
            ("--overlong", self.overlong, OVERLONG),
            ("--tokenizer-engine", self.tokenizer_engine, BACKENDS),
            ("--format", self.format, (AUTO, *record_formats())),
        ):
            if value not in known:
                raise UsageError(f"{name} {value}: unknown; {nearest(value, known)}")
        if self.train_on == "everything" and not (self.train_reasoning and self.train_tool_calls):
            flag = "--no-train-tool-calls" if self.train_reasoning else "--no-train-reasoning"
            raise UsageError(f"--train-on everything trains every token; leave out {flag}, or choose --train-on all")
        if self.train_on == "everything" and self.rewritten_turns in ("skip", "unroll"):
            raise UsageError(
                f"--rewritten-turns {self.rewritten_turns}: contradicts --train-on everything; leave one of them out"
            )
        if not self.inputs:
            raise UsageError("no INPUT; name at least one file, folder or glob")
        if self.max_length is not None and self.max_length < 2:
            raise UsageError(f"--max-length {self.max_length}: a sequence needs at least 2 tokens")
        if self.verify_every < 0:
            raise UsageError(f"--verify-every {self.verify_every}: must be at least 0")
        if self.max_record_bytes < 1024:
            raise UsageError(f"--max-record-bytes {self.max_record_bytes}: must be at least 1024")
        if self.shard_tokens < 1:
            raise UsageError(f"--shard-tokens {self.shard_tokens}: must be at least 1")
        for name, share in (("--valid-fraction", self.valid_fraction), ("--test-fraction", self.test_fraction)):
            if not 0 <= share < 1:
                raise UsageError(f"{name} {share}: must be at least 0 and below 1")
        if self.valid_fraction + self.test_fraction >= 1:
            raise UsageError("--valid-fraction and --test-fraction leave nothing for training")
        known_fields = {name for form in record_formats().values() for name in form.fields}
        for name in self.field:
            if name not in known_fields:
                raise UsageError(f"--field {name}=…: no format has this field; {nearest(name, known_fields)}")
        try:
            checked(dict(self.template_arg))
        except ValueError as error:
            raise UsageError(f"--template-arg {error}") from None
        if self.sources and self.inputs != tuple(one.path for one in self.sources):
            raise UsageError("sources and INPUT both name inputs; name all of them below sources")
        for one in self.sources:
            try:
                self.of(one.own())
            except UsageError as error:
                raise UsageError(f"sources: {one.path}: {error}") from None

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> JobConfig:
        """Return the configuration that these options give, by the names of the fields.

        Raises:
            UsageError: there is no such option, or a value is unknown or contradicts another.
        """
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise UsageError(f"{name}: no option of a job; {nearest(name, cls.__dataclass_fields__)}")
        return cls(**options)

    def of(self, options: Mapping[str, Any]) -> JobConfig:
        """Return the configuration for a source with options of its own, by name."""
        merged: dict[str, Any] = {
            name: {**getattr(self, name), **options.get(name, {})} for name in ("field", "map_role", "template_arg")
        }
        return dataclasses.replace(self, sources=(), format=options.get("format", self.format), **merged)

    @property
    def fields(self) -> FieldMap:
        """The names of columns and roles, as record formats take them."""
        return FieldMap(columns=self.field, roles=self.map_role)

    @property
    def policy(self) -> TrainOn:
        """What carries loss, as templates take it."""
        return TrainOn(
            turns=self.train_on,
            reasoning=self.train_reasoning,
            tool_calls=self.train_tool_calls,
            rewritten=self.rewritten_turns,
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object that the plan and the manifest hold."""
        sources = [one.as_dict() for one in self.sources]
        found = asdict(self) | {"inputs": list(self.inputs), "sources": sources}
        unset = {name for name in UNSAID if found[name] in (self.__dataclass_fields__[name].default, {}, [])}
        return {name: value for name, value in found.items() if name not in unset}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> JobConfig:
        """Read what `as_dict` gave."""
        sources = tuple(SourceOptions(**one) for one in raw.get("sources", ()))
        return cls(**{**raw, "inputs": tuple(raw["inputs"]), "sources": sources})
