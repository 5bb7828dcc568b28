"""`check`: what files are, and what a job would make of them, without a tokenizer and without writing anything.

Of each file the first records are read as a job reads them. What the template or the length would refuse is not known
here; `preview` renders, and a job counts.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.formats.reasons import REASONS
from sft_shards.formats.records import FieldMap, MessageFormat, RecordFormat
from sft_shards.formats.records.detect import format_of, without_yielding
from sft_shards.formats.records.registry import formats, get
from sft_shards.preprocess.config import AUTO
from sft_shards.preprocess.pipeline.containment import internal_error, is_unforeseen
from sft_shards.preprocess.sources import PartReader, Source, whole_of
from sft_shards.preprocess.sources.find import named_files, open_source
from sft_shards.preprocess.sources.streams import MAX_RECORD_BYTES
from sft_shards.preprocess.trials.flags import Proposal, as_words, propose

RECORDS = 1000
"""Records of each file that are looked at if no number is given."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Records of one file that would be left out for one reason."""

    reason: str
    records: int
    first: int
    """Number of the first of them."""
    detail: str
    remedy: str
    """What would help; "" for a reason of another package."""


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """What one file is, and what a job would make of it."""

    path: str
    kind: str = ""
    """Kind of file, such as `jsonl`; "" where it cannot be read at all."""
    compression: str = ""
    records: int = 0
    """Records in the file, or a lower bound where `complete` is not set."""
    complete: bool = False
    """Whether all records were looked at."""
    looked_at: int = 0
    format: str = ""
    """Name of the record format; "" where none fits."""
    fitting: int = 0
    """Records looked at that have the form of this format."""
    usable: int = 0
    """Records looked at that can be read."""
    columns: tuple[str, ...] = ()
    """Top-level columns, in the order of their first use."""
    roles: Mapping[str, int] = field(default_factory=dict)
    """Turns by role, of the records that can be read."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Keys of messages that are not read, with the number of records that have them."""
    refused: tuple[Refusal, ...] = ()
    """By reason, the most frequent first."""
    flags: tuple[str, ...] = ()
    """Options to give; none where a job finds out by itself."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The same as keys of `--source`."""
    problem: str = ""
    """Why a job would refuse the whole file without these flags; "" where it would not."""

    @property
    def is_fine(self) -> bool:
        """Whether a job can use the file as it is, and would leave nothing out."""
        return bool(self.format) and not self.problem and not self.refused

    def as_dict(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        return asdict(self)


def check(
    inputs: Sequence[str],
    *,
    form: str = AUTO,
    fields: FieldMap | None = None,
    most: int = RECORDS,
    record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[FileCheck]:
    """Look at every file that inputs name.

    Args:
        form: name of the record format, or `auto`.
        fields: names of columns and roles that are known.
        most: records of each file that are looked at; 0 for all.
        record_bytes: the value of `--max-record-bytes`.

    Raises:
        UsageError: an input is not there, or a folder holds nothing readable.
    """
    if form != AUTO:
        get(form)
    known = fields or FieldMap()
    for file, name in named_files(inputs):
        try:
            yield _checked(open_source(file, name), form, known, most, record_bytes)
        except (UsageError, DataError) as error:
            yield FileCheck(path=name, problem=str(error).removeprefix(f"{name}: "))


def _checked(source: Source, form: str, known: FieldMap, most: int, record_bytes: int) -> FileCheck:
    reader = PartReader(source, whole_of(source), record_bytes)
    seen: list[tuple[int, Any | RecordError]] = []
    complete = True
    for batch in reader.batches():
        if most and len(seen) + len(batch) > most:
            seen += islice(batch, most - len(seen))
            complete = False
            break
        seen += batch
    records = [record for _, record in seen if not isinstance(record, RecordError)]
    found = FileCheck(
        path=source.path,
        kind=source.kind,
        compression=source.compression,
        records=_rows(source) or len(seen),
        complete=complete,
        looked_at=len(seen),
        columns=tuple(dict.fromkeys(str(key) for one in records if isinstance(one, Mapping) for key in one)),
    )
    if not records:
        return replace(found, problem="no record can be read", refused=_refused(seen))
    names = _detected(records, known) if form == AUTO else [form]
    chosen = Proposal(format=names[0], columns=known.columns, roles=known.roles) if names else None
    if chosen is None or _read(chosen, records) * 2 < len(records):
        better = propose(records, known)
        if better is not None and (chosen is None or _read(better, records) > _read(chosen, records)):
            chosen = better
    if chosen is None:
        return replace(
            found,
            refused=_refused(seen),
            problem=f"none of {', '.join(formats())} fits; name the format with --format and its columns with --field",
        )
    return _described(found, chosen, names, seen, records, auto=form == AUTO, known=known)


def _described(
    found: FileCheck,
    chosen: Proposal,
    names: Sequence[str],
    seen: Sequence[tuple[int, Any | RecordError]],
    records: Sequence[Any],
    *,
    auto: bool,
    known: FieldMap,
) -> FileCheck:
    """Read what was seen with the chosen options, and say what became of it.

    Args:
        names: formats that a job would find in the file, the most frequent first.
        auto: whether a job would have to find out the format.
        known: names of columns and roles that the call gives already.
    """
    form, fields = formats()[chosen.format], chosen.fields()
    outcomes = [(number, _outcome(form, record, fields)) for number, record in seen]
    roles: Counter[str] = Counter()
    for _, outcome in outcomes:
        if not isinstance(outcome, RecordError):
            roles.update(outcome)
    unread: Counter[str] = Counter()
    if isinstance(form, MessageFormat):
        unread.update(key for record in records for key in form.unread(record, fields))
    fitting = sum(form.matches(record, fields) for record in records)
    fresh = {name: value for name, value in chosen.columns.items() if known.columns.get(name) != value}
    speakers = {name: role for name, role in chosen.roles.items() if known.roles.get(name) != role}
    named = auto and (bool(fresh) or list(names) != [chosen.format])
    options: dict[str, object] = {"format": chosen.format} if named else {}
    options |= {key: value for key, value in (("field", fresh), ("map_role", speakers)) if value}
    problem = ""
    if auto and len(names) > 1:
        problem = f"mixes formats ({', '.join(names)})"
    elif auto and not names:
        problem = "no format is detected"
    elif speakers:
        problem = f"speakers that no format knows ({', '.join(map(repr, speakers))})"
    elif fresh:
        problem = "columns that no format knows"
    return replace(
        found,
        format=chosen.format,
        fitting=fitting,
        usable=sum(not isinstance(outcome, RecordError) for _, outcome in outcomes),
        roles=dict(roles.most_common()),
        unread=dict(sorted(unread.items())),
        refused=_refused(outcomes),
        flags=as_words(chosen.format if named else "", fresh, speakers),
        options=options,
        problem=problem,
    )


def _outcome(form: RecordFormat, record: Any | RecordError, fields: FieldMap) -> list[str] | RecordError:
    """Read a record, and return the roles of its turns, or why it would be left out."""
    if isinstance(record, RecordError):
        return record
    try:
        return [turn.role for turn in form.read(record, fields).turns]
    except RecordError as error:
        return error.kept()
    except Exception as error:
        if not is_unforeseen(error):
            raise
        return internal_error(error)


def _detected(records: Sequence[Any], fields: FieldMap) -> list[str]:
    """Return the formats that a job would find, the most frequent first."""
    found = Counter(name for record in records if (name := format_of(record, fields)) is not None)
    return list(without_yielding(dict(found.most_common())))


def _read(chosen: Proposal, records: Sequence[Any]) -> int:
    """Count the records that can be read."""
    form, fields = formats()[chosen.format], chosen.fields()
    return sum(not isinstance(_outcome(form, record, fields), RecordError) for record in records)


def _refused(outcomes: Sequence[tuple[int, object]]) -> tuple[Refusal, ...]:
    """Sum up what would be left out."""
    found: dict[str, list[tuple[int, RecordError]]] = {}
    for number, outcome in outcomes:
        if isinstance(outcome, RecordError):
            found.setdefault(outcome.reason, []).append((number, outcome))
    return tuple(
        Refusal(
            reason=reason,
            records=len(errors),
            first=errors[0][0],
            detail=errors[0][1].detail,
            remedy=REASONS[reason].remedy if reason in REASONS else "",
        )
        for reason, errors in sorted(found.items(), key=lambda item: -len(item[1]))
    )


def _rows(source: Source) -> int:
    """Return the rows that a Parquet file says it has; 0 for other kinds."""
    if source.kind != "parquet":
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(source.file).num_rows)
    except (pa.ArrowException, OSError):
        return 0


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """How to go on: a call of `run`, and the YAML that it reads where files need options of their own."""

    command: str
    yaml: str
    """Contents of `sources.yaml`; "" where the command says all."""


def next_step(inputs: Sequence[str], files: Sequence[FileCheck], given: Sequence[str] = ()) -> NextStep | None:
    """Return how to read the files as proposed; None where none can be used.

    Files that can be used share one set of options unless two of them contradict each other.

    Args:
        given: options that the call of `check` had.
    """
    usable = [file for file in files if file.format]
    if not usable:
        return None
    names = list(inputs) if len(usable) == len(files) else [file.path for file in usable]
    tail = [*given, "--output", "shards", "--tokenizer", "YOUR_TOKENIZER"]
    shared = _shared(usable)
    if shared is not None:
        return NextStep(command=shlex.join(["sft-preprocess", "run", *names, *shared, *tail]), yaml="")
    own = [json.dumps({"path": file.path, **file.options}, ensure_ascii=False) for file in usable]
    command = shlex.join(["sft-preprocess", "run", "--config", "sources.yaml", *tail])
    return NextStep(command=command, yaml="".join(["sources:\n", *(f"  - {one}\n" for one in own)]))


def _shared(files: Sequence[FileCheck]) -> tuple[str, ...] | None:
    """Return options that serve all files; None where there are none.

    Files with the same options share them. Speakers may be named for all: a name that a file lacks does no harm there.
    """
    if len({file.flags for file in files}) == 1:
        return files[0].flags
    roles: dict[str, object] = {}
    for file in files:
        own = file.options.get("map_role")
        for name, role in (own if isinstance(own, Mapping) else {}).items():
            if set(file.options) != {"map_role"} or roles.setdefault(name, role) != role or name in file.roles:
                return None
        if file.options and not own:
            return None
    return as_words("", {}, roles)
