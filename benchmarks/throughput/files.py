"""Our command beside the loop, over files with tools or reasoning as somebody published them.

Such files are small. They are repeated up to a size that can be measured, with a quarter of their words exchanged for
others of the same file in each repetition, so that no text was seen before.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.corpus import EVERY
from benchmarks.throughput.kinds import measured_in_turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, RecordFormat, detect
from sft_shards.preprocess.sources import find_sources, sample

WORD = re.compile(r"(?!think)[A-Za-z]{4,}|[\u4e00-\u9fff]{2}")
EXCHANGED = 0.25
"""Share of the words."""
KEPT = ("role", "from", "type", "name", "id", "tool_call_id", "required", "enum")
"""Keys whose texts stay as they are."""
LOOP_SHARE = 16
"""The loop, which is slow, gets one record in so many."""


def files(bench: Bench) -> list[dict[str, Any]]:
    """Run both on each file with more than texts, and print our speed beside the loop's."""
    rows, table = [], []
    fields = FieldMap(roles=bench.roles)
    for source in find_sources([str(bench.data)]):
        records = [one for _, one in sample(source, EVERY) if not isinstance(one, RecordError)]
        try:
            form = detect(list(enumerate(records[:200])), fields, source.path)
        except UsageError:
            continue
        rich = [one for one in records if is_rich(one, form, fields)]
        if not rich:
            continue
        name, folder = Path(source.path).name, bench.corpus.folder / f"file-{len(rows)}"
        write(folder, rich, form, fields, bench.corpus.bytes)
        found = measured_in_turn(bench, folder, name, record_format=form.name)
        ours, loop = (statistics.median(each) for each in found)
        rows.append({"file": name, "records": len(rich), "seconds_per_token": ours, "loop": loop, "ratio": loop / ours})
        table.append([name, str(len(rich)), f"{1e-6 / ours:.2f}", f"{1e-6 / loop:.2f}", f"{loop / ours:.1f}"])
        print(f"{name}: {loop / ours:.1f} times the loop", file=sys.stderr, flush=True)
    print_table(["file", "records", "M tokens/s", "the loop", "ratio"], table)
    return rows


def is_rich(record: Any, form: RecordFormat, fields: FieldMap) -> bool:
    """Return whether a record is a conversation with tools, calls, reasoning or think tags."""
    try:
        conversation = form.read(record, fields)
    except RecordError:
        return False
    return bool(conversation.tools) or any(
        turn.tool_calls or turn.reasoning or "</think>" in (turn.content or "") for turn in conversation.turns
    )


def write(folder: Path, records: list[Any], form: RecordFormat, fields: FieldMap, size: int) -> None:
    """Write records with other words: as they are for ours, and as messages for the loop, which knows nothing else."""
    words = sorted({word for record in records[:200] for word in WORD.findall(json.dumps(record, ensure_ascii=False))})
    dice = random.Random(0)

    def changed() -> Iterator[Any]:
        while True:
            yield from (exchanged(record, words, dice) for record in records)

    def as_messages() -> Iterator[Any]:
        for record in changed():
            conversation = form.read(record, fields)
            tools = {"tools": list(conversation.tools)} if conversation.tools else {}
            yield {"messages": conversation.messages(), **tools}

    for name, made, most in (
        ("corpus", changed(), size),
        ("own-one", changed(), 1),
        ("share", as_messages(), size // LOOP_SHARE),
        ("one", as_messages(), 1),
    ):
        (folder / name).mkdir(parents=True)
        with open(folder / name / "messages.jsonl", "w", encoding="utf-8") as file:
            while file.tell() < most:
                file.write(json.dumps(next(made), ensure_ascii=False) + "\n")


def exchanged(value: Any, words: list[str], dice: random.Random, key: str = "") -> Any:
    """A value with some words of its texts exchanged, also of texts in JSON."""
    if isinstance(value, dict):
        return {name: exchanged(one, words, dice, name) for name, one in value.items()}
    if isinstance(value, list):
        return [exchanged(one, words, dice, key) for one in value]
    if not isinstance(value, str) or key in KEPT:
        return value
    if value[:1] in ("{", "["):
        try:
            return json.dumps(exchanged(json.loads(value), words, dice), ensure_ascii="\\u" in value)
        except ValueError:
            pass
    return WORD.sub(lambda found: dice.choice(words) if dice.random() < EXCHANGED else found[0], value)
