"""The plan of a job: its configuration, everything that its bytes depend on, and a fixed list of tasks.

Task i makes the same bytes wherever and whenever it runs, so an engine may run tasks in any order and on any machine.
The plan is written once, below the output folder; a job that goes on there with another configuration, other inputs,
another tokenizer or other versions is refused with a list of what differs.

Planning reads little: the first records of each file, the commas of a JSON array, the headers of a table. The tasks
hash the files' contents as they read them; the plan keeps each file's size and time of change, and tasks refuse a
file that has others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.formats.records import MessageFormat, detect, get
from sft_shards.formats.shards.contents import folder_inside, is_file_inside, read_inside
from sft_shards.formats.shards.files import atomic_write, sha256_inside, write_json
from sft_shards.formats.shards.manifest import check_source, check_tokenizer_names
from sft_shards.formats.shards.schema import SchemaError, build, checked, parse
from sft_shards.formats.templates import TOKENIZER
from sft_shards.preprocess.config import AUTO, JobConfig
from sft_shards.preprocess.pipeline.reference import configured_template
from sft_shards.preprocess.sources import Part, Source, cut, find_sources, sample
from sft_shards.preprocess.tasks.diff import differences, joined
from sft_shards.preprocess.tasks.workdir import PLAN, TASKS, WORK
from sft_shards.preprocess.tokenizer.backends import choose_backend
from sft_shards.preprocess.tokenizer.tokenizer import LOADED, Tokenizer
from sft_shards.preprocess.versions import versions

SAMPLE = 200
"""Records of each file from which `--format auto` finds out the format."""
TEXT = "text"
"""The format of plain text, which no template renders."""
BYTES_PER_TOKEN = 4
"""Bytes of input that count as one token when sources are cut into tasks."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work: a part of one source, which becomes at most one shard of each split."""

    number: int
    source: Source
    part: Part

    @property
    def bytes(self) -> int:
        """Size of its part, as a measure of its work."""
        return self.part.end - self.part.begin


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a task needs to know, and all that decides about the bytes it makes."""

    config: JobConfig
    template: str
    """The template's name with `auto` resolved; the bare name of a file."""
    template_sha256: str
    tokenizer_sha256: dict[str, str]
    """By name, the hash of each tokenizer file."""
    tokenizer_loaded: str
    """SHA-256 of what transformers made of those files (`loaded.npz`)."""
    engine: str
    """The backend that gives the token ids: `fastokens` or `hf`."""
    engine_check: str
    """How it was chosen, a sentence for people."""
    versions: dict[str, str]
    sources: tuple[Source, ...]
    tasks: tuple[Task, ...]
    """In the order of their shards."""
    template_source: str | None = None
    """The text of a template file, which nothing but planning reads."""

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object of `plan.json`; a task is [number of its source, begin, end, first, last]."""
        places = {source.path: number for number, source in enumerate(self.sources)}
        found = {
            "config": self.config.as_dict(),
            "template": self.template,
            "template_sha256": self.template_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "tokenizer_loaded": self.tokenizer_loaded,
            "engine": self.engine,
            "engine_check": self.engine_check,
            "versions": self.versions,
            "sources": [source.as_dict() for source in self.sources],
            "tasks": [[places[task.source.path], *asdict(task.part).values()] for task in self.tasks],
        }
        return found if self.template_source is None else found | {"template_source": self.template_source}

    @classmethod
    def read(cls, output: Path) -> Plan:
        """Read the plan that an output folder holds.

        Raises:
            UsageError: it holds none.
        DataError: it is a link, or not of the form that this release writes.
        """
        try:
            raw = parse(read_inside(output, f"{WORK}/{PLAN}"))
            cuts = raw.get("tasks") if isinstance(raw, dict) else None
            cuts = checked(tuple[tuple[int, int, int, int, int], ...], cuts, "tasks")
            plan = build(cls, {**raw, "tasks": []})
            if any(not 0 <= at < len(plan.sources) for at, *_ in cuts):
                raise SchemaError("tasks: a task has no source")
            check_tokenizer_names(plan.tokenizer_sha256, "tokenizer_sha256")
            check_source(plan.template_source, plan.template_sha256, "template_source")
        except FileNotFoundError:
            raise UsageError(
                f"{output}: no planned job; make one with 'sft-preprocess plan --output {output}'"
            ) from None
        except SchemaError as error:
            release = versions()["sft-shards"]
            raise DataError(
                f"{output / WORK / PLAN}: not a plan of sft-shards {release} ({error}); plan again with --overwrite"
            ) from None
        tasks = tuple(
            Task(number=number, source=plan.sources[at], part=Part(begin=begin, end=end, first=first, last=last))
            for number, (at, begin, end, first, last) in enumerate(cuts)
        )
        return replace(plan, tasks=tasks)

    def is_written(self, output: Path) -> bool:
        """Whether this very plan is what `.work/plan.json` holds.

        Raises:
            DataError: that is a link.
        """
        return is_file_inside(output, f"{WORK}/{PLAN}") and not differences(_raw(output), self.as_dict())

    def write(self, output: Path, tokenizer: Tokenizer) -> None:
        """Write `DIR/.work/plan.json` and the tokenizer's files beside it, or find the same plan there.

        Raises:
            UsageError: another plan is there; the message says what differs.
        """
        folder_inside(output, f"{WORK}/{TASKS}")
        path = output / WORK / PLAN
        if is_file_inside(output, f"{WORK}/{PLAN}"):
            changed = differences(_raw(output), self.as_dict())
            if changed:
                raise UsageError(
                    f"{output}: holds an unfinished job with another plan ({joined(changed, 10)}); "
                    "go on with the same call, choose another --output, or give --overwrite"
                )
        else:
            tokenizer.copy_files(output, f"{WORK}/tokenizer", scratch=output / WORK)
            with atomic_write(output / WORK / "tokenizer" / LOADED, scratch=output / WORK) as file:
                file.write(tokenizer.loaded)
            write_json(path, self.as_dict(), scratch=output / WORK)


def _raw(output: Path) -> Any:
    """Read the JSON of a plan for comparison; null where it is none."""
    try:
        return parse(read_inside(output, f"{WORK}/{PLAN}"))
    except SchemaError:
        return None


def planned_sources(config: JobConfig, stdin: Callable[[], Path] | None = None) -> tuple[Source, ...]:
    """Look at every input once, and find out its format. No tokenizer is needed.

    Args:
        stdin: puts standard input into a file; None where `-` cannot be an input.

    Raises:
        UsageError: an input that cannot be used.
        DataError: an input that is damaged.
    """
    own = [one.own() for one in config.sources]
    return tuple(_planned(source, config.of(source.options)) for source in find_sources(config.inputs, stdin, own))


def make_plan(
    config: JobConfig, tokenizer: Tokenizer, sources: Sequence[Source], template_source: str | None = None
) -> Plan:
    """Choose the template and the backend, and cut the inputs into tasks.

    Args:
        config: names a template file by its bare name.
        template_source: the text of this file, where there is one.

    Raises:
        UsageError: no template where one is needed, or a tokenizer that cannot be used.
        DataError: an input that is damaged.
    """
    name = (
        config.template
        if template_source
        else chosen_template(config, tokenizer, {source.format for source in sources})
    )
    template = configured_template(config, name, tokenizer, template_source)
    template.require_parts(config.policy)
    for source in sources:
        if source.options:
            try:
                own = configured_template(config.of(source.options), name, tokenizer, template_source)
                own.require_parts(config.policy)
            except UsageError as error:
                raise UsageError(f"{source.path}: {error}") from None
    target = config.shard_tokens * BYTES_PER_TOKEN
    parts = [(source, part) for source in sources for part in cut(source, target)]
    size = sum(source.bytes for source in sources)
    engine, engine_check = choose_backend(config.tokenizer_engine, tokenizer, size)
    return Plan(
        config=config,
        template=name,
        template_sha256=template.sha256,
        template_source=template_source,
        tokenizer_sha256=tokenizer.info().files,
        tokenizer_loaded=hashlib.sha256(tokenizer.loaded).hexdigest(),
        engine=engine,
        engine_check=engine_check,
        versions=versions(),
        sources=tuple(sources),
        tasks=tuple(Task(number=at, source=source, part=part) for at, (source, part) in enumerate(parts)),
    )


def _planned(source: Source, config: JobConfig) -> Source:
    form = None if config.format == AUTO else get(config.format)
    unread: tuple[str, ...] = ()
    if form is None or isinstance(form, MessageFormat):
        seen = sample(source, SAMPLE, config.max_record_bytes)
        found = [(at, record) for at, record in seen if not isinstance(record, RecordError)]
        if form is None:
            if seen and not found:
                at, broken = seen[0]
                raise UsageError(
                    f"{source.path}: none of the first {len(seen)} records can be read (record {at}: {broken}); mend it"
                )
            try:
                form = detect(found, config.fields, source.path)
            except UsageError as error:
                raise UsageError(f"{error}; 'sft-preprocess check {source.path}' proposes options") from None
        if isinstance(form, MessageFormat):
            counts = Counter(key for _, record in found for key in form.unread(record, config.fields))
            unread = tuple(f"{key} (in {count} of {len(found)})" for key, count in sorted(counts.items()))
    return replace(source, format=form.name, unread=unread)


def chosen_template(config: JobConfig, tokenizer: Tokenizer, formats: set[str]) -> str:
    """Return the name of the template, with `auto` resolved for inputs of some formats.

    Raises:
        UsageError: none is named, and the tokenizer has none.
    """
    if config.template not in (AUTO, TOKENIZER):
        return config.template
    if tokenizer.chat_template is not None:
        return TOKENIZER
    if config.template == AUTO and formats <= {"alpaca", TEXT}:
        return "alpaca"  # a plain text is not rendered
    raise UsageError(f"tokenizer {config.tokenizer}: has no chat template; choose one with --template, such as chatml")


def planned_tokenizer(plan: Plan, output: Path) -> Tokenizer:
    """Load the tokenizer from the files that the plan put below the output folder.

    Raises:
        DataError: a file is not the one that was planned.
    """
    folder = output / WORK / "tokenizer"
    for name, digest in plan.tokenizer_sha256.items():
        if sha256_inside(output, f"{WORK}/tokenizer/{name}") != digest:
            raise DataError(f"{folder / name}: not the tokenizer file that was planned; plan again with --overwrite")
    return Tokenizer.planned(plan.config.tokenizer, folder, plan.tokenizer_loaded)


def check_versions(plan: Plan) -> None:
    """Refuse to run tasks with libraries that may make other bytes than planned.

    Raises:
        DataError: a library has another version here.
    """
    changed = differences(plan.versions, versions())
    if changed:
        raise DataError(
            f"this machine has other versions than the plan ({'; '.join(changed)}); install the same everywhere"
        )
