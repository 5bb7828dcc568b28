"""Our command over the same single questions and answers in each record format."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.child import NotRunError
from benchmarks.throughput.corpus import Message
from benchmarks.throughput.measure import Measured

FORMATS = {
    "chatml": ("chatml", "chatml.jsonl"),
    "openai": ("openai", "openai.jsonl"),
    "sharegpt": ("sharegpt", "sharegpt.jsonl"),
    "alpaca": ("alpaca", "alpaca.jsonl"),
    "parquet": ("openai", "openai.parquet"),
}
"""By name in the table: the format for `--format`, and the file."""
SPEAKERS = {"user": "human", "assistant": "gpt"}
WRITERS: dict[str, Callable[[list[Message]], Any]] = {
    "chatml": lambda turns: {
        "text": "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
    },
    "openai": lambda turns: {"messages": turns},
    "sharegpt": lambda turns: {
        "conversations": [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in turns]
    },
    "alpaca": lambda turns: {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]},
}


def record_formats(bench: Bench) -> list[dict[str, Any]]:
    """Run our command on each format, and print its speed beside that of ChatML."""
    rows = [
        messages for messages in bench.corpus.messages() if [one["role"] for one in messages] == ["user", "assistant"]
    ]
    if len(rows) < 2:
        raise SystemExit("fewer than 2 conversations of one question and one answer in the corpus")
    folders = {"all": bench.corpus.folder / "formats", "one": bench.corpus.folder / "formats-one"}
    write(folders["all"], rows)
    write(folders["one"], rows[-1:])
    found: dict[str, list[float]] = {name: [] for name in FORMATS}
    for turn in range(bench.rounds):
        for name in list(FORMATS)[:: 1 if turn % 2 == 0 else -1]:
            record_format, file = FORMATS[name]
            try:
                made = bench.run(
                    "ours", part=folders["all"], one=folders["one"], record_format=record_format, file=file
                )
            except NotRunError as error:
                raise SystemExit(f"{name}: {error}") from None
            measured = Measured.of(made)
            found[name].append(measured.cpu / measured.tokens)
    seconds = {name: statistics.median(values) for name, values in found.items()}
    base = seconds["chatml"]
    table = [[name, f"{1e-6 / value:.2f}", f"{value / base:.2f}"] for name, value in seconds.items()]
    print_table(["records", "M tokens/s", "time of ChatML"], table)
    return [{"format": name, "seconds_per_token": value, "of_chatml": value / base} for name, value in seconds.items()]


def write(folder: Path, rows: list[list[Message]]) -> None:
    """Conversations of one question and one answer in every record format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for name, writer in WRITERS.items():
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(writer(turns), ensure_ascii=False) + "\n" for turns in rows)
    pq.write_table(pa.table({"messages": rows}), folder / "openai.parquet")
