"""Our command beside the loop, over records of each kind: with tools, reasoning, content parts and so on.

The texts are those of the corpus. Each kind puts them into records of another make, so that no text was seen before.
"""

from __future__ import annotations

import json
import statistics
import sys
import unicodedata
from collections.abc import Callable
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


KINDS = {
    "text-only": text_only,
    "`reasoning_content`": reasoning,
    "think blocks in contents": think,
    "tool turns": tool_turns,
    "calls": calls,
    "calls and tools": tools,
    "calls and the same tools": same_tools,
    "`weight`": weight,
    "content parts": parts,
    "not in NFC": decomposed,
    "half text-only, half tools": mixed,
}
"""By name in the table: what makes a record of messages and its number."""


def kinds(bench: Bench) -> list[dict[str, Any]]:
    """Run both on each kind, and print our speed beside the loop's."""
    messages = bench.corpus.messages()
    rows = []
    table = []
    for name, make in KINDS.items():
        folder = bench.corpus.folder / f"kind-{len(rows)}"
        share = len(messages) // LOOP_SHARE
        write(folder / "corpus", make, messages[:-share])
        write(folder / "share", make, messages[-share:-1])
        write(folder / "one", make, messages[-1:])
        seconds: dict[str, list[float]] = {OURS: [], REFERENCE: []}
        for turn in range(bench.rounds):
            for contender in list(seconds)[:: 1 if turn % 2 == 0 else -1]:
                part = folder / ("share" if contender == REFERENCE else "corpus")
                try:
                    made = Measured.of(bench.run(contender, part=part, one=folder / "one"))
                except NotRunError as error:
                    raise SystemExit(f"{name}: {contender}: {error}") from None
                seconds[contender].append(made.cpu / made.tokens)
        ours, loop = (statistics.median(seconds[contender]) for contender in (OURS, REFERENCE))
        rows.append({"kind": name, "seconds_per_token": ours, "loop": loop, "ratio": loop / ours})
        table.append([name, f"{1e-6 / ours:.2f}", f"{1e-6 / loop:.2f}", f"{loop / ours:.1f}"])
        print(f"{name}: {loop / ours:.1f} times the loop", file=sys.stderr, flush=True)
    print_table(["records", "M tokens/s", "the loop", "ratio"], table)
    return rows


def write(folder: Path, make: Callable[[list[Message], int], Record], rows: list[list[Message]]) -> None:
    """Write records of a kind as JSON lines."""
    folder.mkdir(parents=True)
    with open(folder / "messages.jsonl", "w", encoding="utf-8") as file:
        for number, messages in enumerate(rows):
            file.write(json.dumps(make(messages, number), ensure_ascii=False) + "\n")
