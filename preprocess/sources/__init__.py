"""Input files: finding them, cutting them into parts of about equal work, and reading records out of a part.

    inputs ──find──▶ Source ──cut──▶ Part ──PartReader──▶ Records, a batch at a time

In five lines:

    from sft_shards.preprocess.sources import PartReader, cut, find_sources
    source = find_sources(["tests/data/openai_tr.jsonl"])[0]
    for part in cut(source, target=1 << 26):
        for batch in PartReader(source, part).batches():
            print(part.begin, [number for number, record in batch])

Lines end at a newline byte and nowhere else: U+2028 and U+0085 are ordinary characters inside of a JSON text.
Blank lines are no records. Records are numbered from 0 within their part; finalize adds where the part begins.
"""

from sft_shards.preprocess.sources.find import find_sources
from sft_shards.preprocess.sources.partition import Part, cut
from sft_shards.preprocess.sources.raw_records import Records, Rows, Texts
from sft_shards.preprocess.sources.reader import PartReader, parse, sample, whole_of
from sft_shards.preprocess.sources.source import Item, Source

__all__ = [
    "Item",
    "Part",
    "PartReader",
    "Records",
    "Rows",
    "Source",
    "Texts",
    "cut",
    "find_sources",
    "parse",
    "sample",
    "whole_of",
]
