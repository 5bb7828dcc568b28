"""The record formats by name: the built-in ones, and those that other packages register."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.records.alpaca import Alpaca
from sft_shards.formats.records.base import RecordFormat
from sft_shards.formats.records.chatml import ChatML
from sft_shards.formats.records.instances import Instances
from sft_shards.formats.records.openai import OpenAI
from sft_shards.formats.records.plain_text import PlainText
from sft_shards.formats.records.prompt_completion import PromptCompletion
from sft_shards.formats.records.rounds import Rounds
from sft_shards.formats.records.sharegpt import ShareGPT

GROUP = "sft_shards.records"
"""Entry point group: a class or object with the members of `RecordFormat` registers under its name."""

YIELDING = ("rounds", "prompt-completion", "instances", "text")
"""Formats that give way: a file has one only where no sampled record has another format. They came after the others,
and a file of which the format was found before, with some records left out, still has it."""


@cache
def formats() -> dict[str, RecordFormat]:
    """Return every known format by name: those registered under `GROUP`, sorted, stand before those that yield."""
    known: dict[str, RecordFormat] = {one.name: one for one in (Alpaca(), ChatML(), OpenAI(), ShareGPT())}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found = point.load()
        known[point.name] = found() if isinstance(found, type) else found
    for one in (Rounds(), PromptCompletion(), Instances(), PlainText()):
        known.setdefault(one.name, one)
    return known


def get(name: str) -> RecordFormat:
    """Return the format of a name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    if name not in formats():
        raise UsageError(f"no record format {name!r}; {nearest(name, formats())}")
    return formats()[name]
