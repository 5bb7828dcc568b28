"""The plan of a job: its configuration, the hashes of all it depends on, and a fixed list of tasks.

Task i makes the same bytes wherever and whenever it runs, so whatever distributes tasks is free to do it as it
likes. The plan is written once, under the output folder; a job that goes on with another configuration, other
inputs or another tokenizer is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from formats.errors import RecordError, UsageError
from formats.records import detect
from formats.shards.files import sha256_file, write_json
from formats.templates import TOKENIZER
from preprocess.config import AUTO, JobConfig
from preprocess.sources import Source, find_sources, read
from preprocess.tokenizer import Tokenizer

WORK = ".work"
"""Folder below the output that holds the plan and finished tasks until the manifest is written."""
SAMPLE = 200
"""Records of each file that `--format auto` looks at."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work: one source file, one shard of each split at most."""

    number: int
    source: Source


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that tasks need to know."""

    config: JobConfig
    template: str
    """The template's name with `auto` resolved."""
    tokenizer_sha256: dict[str, str]
    """Of each tokenizer file."""
    sources: tuple[Source, ...]

    @property
    def tasks(self) -> list[Task]:
        """The tasks, in the order of their shards."""
        return [Task(number=number, source=source) for number, source in enumerate(self.sources)]

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`."""
        return {
            "config": self.config.as_dict(),
            "template": self.template,
            "tokenizer_sha256": self.tokenizer_sha256,
            "sources": [source.as_dict() for source in self.sources],
        }

    @classmethod
    def read(cls, output: Path) -> Plan:
        """The plan that an output folder holds."""
        raw = json.loads((output / WORK / "plan.json").read_text("utf-8"))
        return cls(
            config=JobConfig.from_dict(raw["config"]),
            template=raw["template"],
            tokenizer_sha256=raw["tokenizer_sha256"],
            sources=tuple(Source(**source) for source in raw["sources"]),
        )

    def write(self, output: Path) -> None:
        """Write `DIR/.work/plan.json`, or find the same one there.

        Raises:
            UsageError: another job's plan is there; the message says what differs.
        """
        (output / WORK).mkdir(parents=True, exist_ok=True)
        path = output / WORK / "plan.json"
        if path.is_file():
            changed = differences(json.loads(path.read_text("utf-8")), self.as_dict())
            if changed:
                raise UsageError(
                    f"{output}: holds an unfinished job with another plan ({'; '.join(changed)}); "
                    "go on with the same call, choose another --output, or give --overwrite"
                )
        else:
            write_json(path, self.as_dict())


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two JSON-like values, a short phrase each."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            phrase
            for key in keys
            for phrase in differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [phrase for at, (one, other) in pairs for phrase in differences(one, other, f"{where}[{at}]")]
    return [] if old == new else [f"{where}: {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def make_plan(config: JobConfig, tokenizer: Tokenizer) -> Plan:
    """Look at every input once: hash it, find out its format, and settle on the template.

    Raises:
        UsageError: an input that cannot be used, or no template where one is needed.
    """
    sources = tuple(_planned(source, config) for source in find_sources(config.inputs))
    return Plan(
        config=config,
        template=_template(config, tokenizer, {source.format for source in sources}),
        tokenizer_sha256=tokenizer.info().files,
        sources=sources,
    )


def _planned(source: Source, config: JobConfig) -> Source:
    name = config.format
    if name == AUTO:
        sample = [
            (number, record) for number, record in islice(read(source), SAMPLE) if not isinstance(record, RecordError)
        ]
        name = detect(sample, config.fields, source.path).name
    return replace(source, sha256=sha256_file(source.path), format=name)


def _template(config: JobConfig, tokenizer: Tokenizer, formats: set[str]) -> str:
    if config.template not in (AUTO, TOKENIZER):
        return config.template
    if tokenizer.chat_template is not None:
        return TOKENIZER
    if config.template == AUTO and formats == {"alpaca"}:
        return "alpaca"
    raise UsageError(f"tokenizer {config.tokenizer}: has no chat template; choose one with --template, such as chatml")
