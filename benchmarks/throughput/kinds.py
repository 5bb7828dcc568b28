"""Our command beside the loop, over records of each kind: with tools, reasoning, content parts and so on.

The texts are those of the corpus. Each kind puts them into records of another make, so that no text was seen before.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.child import NotRunError
from benchmarks.throughput.contenders import REFERENCE
from benchmarks.throughput.corpus import Message
from benchmarks.throughput.measure import Measured

Record = dict[str, Any]
OURS = "ours-task-fastokens"
LOOP_SHARE = 16
"""One conversation in so many is for the loop, which is slow; ours takes the others."""


def text_only(messages: list[Message], _number: int) -> Record:
    """The record as it is."""
    return {"messages": messages}


def halves(text: str) -> tuple[str, str]:
    """A text in two: at white space near its middle, where there is any."""
    place = text.find(" ", len(text) // 2)
    place = place if 0 < place < len(text) - 1 else max(len(text) // 2, 1)
    return text[:place], text[place:].strip() or "."


def answers(messages: list[Message], change: Callable[[str], Message]) -> Record:
    """The record with every answer made anew."""
    return {
        "messages": [
            {"role": "assistant", **change(one["content"])} if one["role"] == "assistant" else one for one in messages
        ]
    }


def reasoning(messages: list[Message], _number: int) -> Record:
    """The first half of each answer as `reasoning_content`."""
    return answers(messages, lambda text: dict(zip(("reasoning_content", "content"), halves(text), strict=True)))


def think(messages: list[Message], _number: int) -> Record:
    """The first half of each answer between think tags."""
    return answers(
        messages, lambda text: {"content": "<think>\n{}\n</think>\n\n{}".format(*map(str.strip, halves(text)))}
    )


def tool_turns(messages: list[Message], _number: int) -> Record:
    """A tool's turn behind each question: the question's second half."""
    turns: list[Message] = []
    for one in messages:
        first, second = halves(one["content"])
        if one["role"] == "user":
            turns += [{"role": "user", "content": first}, {"role": "assistant", "content": "I look it up."}]
            turns += [{"role": "tool", "content": second, "name": "search"}]
        else:
            turns.append(one)
    return {"messages": turns}


def calls(messages: list[Message], number: int) -> Record:
    """A call with its result behind each question."""
    turns: list[Message] = []
    for at, one in enumerate(messages):
        first, second = halves(one["content"])
        if one["role"] == "user":
            function = {"name": f"search_{number % 7}", "arguments": json.dumps({"query": first, "limit": at})}
            call = {"id": f"call_{number}_{at}", "type": "function", "function": function}
            turns += [{"role": "user", "content": first}, {"role": "assistant", "content": None, "tool_calls": [call]}]
            turns += [{"role": "tool", "content": second, "tool_call_id": call["id"]}]
        else:
            turns.append(one)
    return {"messages": turns}


def tools(messages: list[Message], number: int) -> Record:
    """The same, with two tools on offer, which are others in each record."""
    words = halves(messages[0]["content"])
    offers = [
        {
            "type": "function",
            "function": {
                "name": f"search_{name}",
                "description": word[:80],
                "parameters": {
                    "type": "object",
                    "properties": {"query": {"type": "string", "description": word[:40]}, "limit": {"type": "integer"}},
                    "required": ["query"],
                },
            },
        }
        for name, word in zip((number % 7, 7), words, strict=True)
    ]
    return {**calls(messages, number), "tools": offers}


def same_tools(messages: list[Message], number: int) -> Record:
    """The same tools in all records."""
    return {**calls(messages, number), "tools": tools([{"role": "user", "content": "Any words"}], 0)["tools"]}


def tools_first(messages: list[Message], number: int) -> Record:
    """The same, with the tools in front of the messages."""
    record = tools(messages, number)
    return {"tools": record["tools"], "messages": record["messages"]}


def weight(messages: list[Message], _number: int) -> Record:
    """Every message with a weight, of which the first answer's is 0."""
    first = next(at for at, one in enumerate(messages) if one["role"] == "assistant")
    return {"messages": [{**one, "weight": int(at != first)} for at, one in enumerate(messages)]}


def parts(messages: list[Message], _number: int) -> Record:
    """Each content as a list of one part."""
    return {"messages": [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]}


def decomposed(messages: list[Message], _number: int) -> Record:
    """Texts in NFD, with a letter that NFC changes in each."""
    return {"messages": [{**one, "content": unicodedata.normalize("NFD", one["content"] + " é")} for one in messages]}


def mixed(messages: list[Message], number: int) -> Record:
    """Every other record with tools."""
    return tools(messages, number) if number % 2 else text_only(messages, number)


def with_arguments(record: Record, change: Callable[[Any], Any]) -> Record:
    """The record with the arguments of every call made anew."""
    for one in record["messages"]:
        for call in one.get("tool_calls", ()):
            call["function"]["arguments"] = change(call["function"]["arguments"])
    return record


def objects(messages: list[Message], number: int) -> Record:
    """Calls whose arguments are objects and no texts in JSON."""
    return with_arguments(calls(messages, number), json.loads)


def objects_and_tools(messages: list[Message], number: int) -> Record:
    """The same, with tools that are others in each record."""
    return {**objects(messages, number), "tools": tools(messages, number)["tools"]}


def objects_and_same_tools(messages: list[Message], number: int) -> Record:
    """The same, with the same tools in all records."""
    return {**objects(messages, number), "tools": same_tools(messages, number)["tools"]}


def sharegpt(messages: list[Message], number: int) -> Record:
    """A `function_call` and an `observation` behind each question."""
    turns: list[Message] = []
    for one in objects(messages, number)["messages"]:
        if one.get("tool_calls"):
            turns += [{"from": "function_call", "value": json.dumps(call["function"])} for call in one["tool_calls"]]
        else:
            turns.append({"from": SPEAKERS.get(one["role"], one["role"]), "value": one["content"]})
    return {"conversations": turns}


def loss_weight(messages: list[Message], number: int) -> Record:
    """The weight as a number with a point, in another key."""
    turns = weight(messages, number)["messages"]
    return {"messages": [{**one, "loss_weight": float(one.pop("weight"))} for one in turns]}


def values(messages: list[Message], _number: int) -> Record:
    """Each content as a list of one part, whose text is under `value`."""
    return {"messages": [{**one, "content": [{"type": "text", "value": one["content"]}]} for one in messages]}


def reasoning_parts(messages: list[Message], number: int) -> Record:
    """The first half of each answer as a part of its own."""
    turns = []
    for one in reasoning(messages, number)["messages"]:
        thought = one.pop("reasoning_content", None)
        own = [] if thought is None else [{"type": "thinking", "thinking": thought}]
        turns.append({**one, "content": [*own, {"type": "text", "text": one["content"]}]})
    return {"messages": turns}


def call_parts(messages: list[Message], number: int) -> Record:
    """Each call as a part of its message's content, as Anthropic writes it."""
    turns = []
    for one in objects(messages, number)["messages"]:
        own = [
            {
                "type": "tool_use",
                "id": call["id"],
                "name": call["function"]["name"],
                "input": call["function"]["arguments"],
            }
            for call in one.pop("tool_calls", ())
        ]
        said = [] if one["content"] is None else [{"type": "text", "text": one["content"]}]
        turns.append({**one, "content": [*said, *own]})
    return {"messages": turns}


def call_values(messages: list[Message], number: int) -> Record:
    """Each call as a part whose value is the call in JSON."""
    turns = []
    for one in objects(messages, number)["messages"]:
        own = [{"type": "tool_call", "value": json.dumps(call)} for call in one.pop("tool_calls", ())]
        said = [] if one["content"] is None else [{"type": "text", "text": one["content"]}]
        turns.append({**one, "content": [*said, *own]})
    return {"messages": turns}


def function_calls(messages: list[Message], number: int) -> Record:
    """Calls in the older form: one for each message, without an id, and its result by the role `function`."""
    turns = []
    for one in calls(messages, number)["messages"]:
        if own := one.pop("tool_calls", None):
            turns.append({**one, "function_call": own[0]["function"]})
        elif one.pop("tool_call_id", None):
            turns.append({"role": "function", "name": turns[-1]["function_call"]["name"], "content": one["content"]})
        else:
            turns.append(one)
    return {"messages": turns}


def texts_and_parts(messages: list[Message], _number: int) -> Record:
    """Answers as lists of one part, and questions as texts."""
    return answers(messages, lambda text: {"content": [{"type": "text", "text": text}]})


def texts_or_parts(messages: list[Message], number: int) -> Record:
    """Contents as lists of one part in every other record."""
    return parts(messages, number) if number % 2 else text_only(messages, number)


def deep(messages: list[Message], number: int) -> Record:
    """Calls whose arguments are objects, eight deep."""
    nested = functools.partial(functools.reduce, lambda inner, _: {"and": inner}, range(7))
    return with_arguments(objects(messages, number), nested)


def pairs(messages: list[Message], _number: int) -> Record:
    """A record of `CUSTOM_FORMAT`."""
    return {"said": [[one["role"], one["content"]] for one in messages]}


SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}
CUSTOM_FORMAT = """
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError


class Pairs:
    name = "pairs"
    fields = ()

    def matches(self, record, fields):
        return isinstance(record, dict) and "said" in record

    def read(self, record, fields):
        if not all(isinstance(text, str) for _, text in record["said"]):
            raise RecordError("wrong_type", "a text is none")
        return Conversation(turns=tuple(Turn(role=role, content=text) for role, text in record["said"]))
"""
"""A record format as other packages register it: without the members that read many records at once."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the table."""

    make: Callable[[list[Message], int], Record]
    """Makes a record of messages and its number."""
    loop: Callable[[list[Message], int], Record] | None = None
    """Makes the record for the loop, which knows messages alone (default: the same)."""
    record_format: str = "openai"
    file: str = "messages.jsonl"


TABLE = "messages.parquet"
KINDS = {
    "text-only": Kind(make=text_only),
    "`reasoning_content`": Kind(make=reasoning),
    "think blocks in contents": Kind(make=think),
    "tool turns": Kind(make=tool_turns),
    "calls": Kind(make=calls),
    "calls and tools, others in each record": Kind(make=tools),
    "the same, tools in front of the messages": Kind(make=tools_first),
    "calls and the same tools": Kind(make=same_tools),
    "calls, arguments as objects": Kind(make=objects),
    "the same and tools, others in each record": Kind(make=objects_and_tools),
    "the same in Parquet": Kind(make=objects_and_tools, file=TABLE),
    "the same in Parquet, the same tools": Kind(make=objects_and_same_tools, file=TABLE),
    "ShareGPT's calls": Kind(make=sharegpt, loop=objects, record_format="sharegpt"),
    "`weight`": Kind(make=weight),
    "`loss_weight`": Kind(make=loss_weight, loop=text_only),
    "content parts": Kind(make=parts),
    "content parts with `value`": Kind(make=values, loop=parts),
    "reasoning in parts": Kind(make=reasoning_parts, loop=reasoning),
    "calls in parts": Kind(make=call_parts, loop=objects),
    "calls in parts, as JSON": Kind(make=call_values, loop=objects),
    "the older `function_call`": Kind(make=function_calls, loop=calls),
    "calls, arguments eight deep": Kind(make=deep),
    "contents as texts and as parts": Kind(make=texts_and_parts, loop=text_only),
    "contents as parts in half of the records": Kind(make=texts_or_parts, loop=text_only),
    "not in NFC": Kind(make=decomposed),
    "half text-only, half tools": Kind(make=mixed),
    "a format registered by others": Kind(make=pairs, loop=text_only, record_format="pairs"),
}
"""By name in the table."""


def kinds(bench: Bench) -> list[dict[str, Any]]:
    """Run both on each kind, and print our speed beside the loop's."""
    messages = bench.corpus.messages()
    rows = []
    table = []
    with registered(bench.corpus.folder / "plugin"):
        for name, kind in KINDS.items():
            folder = bench.corpus.folder / f"kind-{len(rows)}"
            ours, loop = (statistics.median(each) for each in seconds_per_token(bench, folder, name, kind, messages))
            rows.append({"kind": name, "seconds_per_token": ours, "loop": loop, "ratio": loop / ours})
            table.append([name, f"{1e-6 / ours:.2f}", f"{1e-6 / loop:.2f}", f"{loop / ours:.1f}"])
            print(f"{name}: {loop / ours:.1f} times the loop", file=sys.stderr, flush=True)
    print_table(["records", "M tokens/s", "the loop", "ratio"], table)
    return rows


def seconds_per_token(
    bench: Bench, folder: Path, name: str, kind: Kind, messages: list[list[Message]]
) -> tuple[list[float], list[float]]:
    """CPU seconds for a token of our command and of the loop, in each round; both over records of a kind."""
    share = len(messages) // LOOP_SHARE
    write(folder / "corpus", kind.make, messages[:-share], kind.file)
    write(folder / "share", kind.loop or kind.make, messages[-share:-1])
    write(folder / "one", kind.loop or kind.make, messages[-1:])
    write(folder / "own-one", kind.make, messages[-1:], kind.file)
    return measured_in_turn(bench, folder, name, record_format=kind.record_format, file=kind.file)


def measured_in_turn(
    bench: Bench, folder: Path, name: str, *, record_format: str, file: str = "messages.jsonl"
) -> tuple[list[float], list[float]]:
    """CPU seconds for a token of our command and of the loop, in each round, first one and then the other first.

    Ours reads `corpus` below a folder, less its time for `own-one`, and the loop `share` and `one`.
    """
    seconds: dict[str, list[float]] = {OURS: [], REFERENCE: []}
    for turn in range(bench.rounds):
        for contender in list(seconds)[:: 1 if turn % 2 == 0 else -1]:
            part, one = ("share", "one") if contender == REFERENCE else ("corpus", "own-one")
            settings = {} if contender == REFERENCE else {"record_format": record_format, "file": file}
            try:
                made = Measured.of(bench.run(contender, part=folder / part, one=folder / one, **settings))
            except NotRunError as error:
                raise SystemExit(f"{name}: {contender}: {error}") from None
            seconds[contender].append(made.cpu / made.tokens)
    return seconds[OURS], seconds[REFERENCE]


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Register `CUSTOM_FORMAT` in the processes that are started meanwhile, as an installed package does."""
    about = folder / "pairs_format-1.dist-info"
    about.mkdir(parents=True)
    (folder / "pairs_format.py").write_text(CUSTOM_FORMAT, "utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pairs-format\nVersion: 1\n", "utf-8")
    (about / "entry_points.txt").write_text("[sft_shards.records]\npairs = pairs_format:Pairs\n", "utf-8")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}


def write(
    folder: Path, make: Callable[[list[Message], int], Record], rows: list[list[Message]], name: str = "messages.jsonl"
) -> None:
    """Write records of a kind as JSON lines, or as Parquet where the file is called so."""
    folder.mkdir(parents=True)
    records = (make(messages, number) for number, messages in enumerate(rows))
    if name == TABLE:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(records)), folder / name)
        return
    with open(folder / name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
