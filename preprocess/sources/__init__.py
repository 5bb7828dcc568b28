"""Input files: finding them, cutting them into parts of about equal work, and reading a part in batches.

    inputs ──find_sources──▶ Source ──cut──▶ Part ──PartReader──▶ RawBatch, a few megabytes of records at a time

In five lines:

    from sft_shards.preprocess.sources import PartReader, cut, find_sources
    source = find_sources(["tests/data/openai_tr.jsonl"])[0]
    for part in cut(source, target=1 << 26):
        for batch in PartReader(source, part).batches():
            print(part.begin, [number for number, record in batch])

What a file contains decides its kind (`kinds.KINDS`: JSONL, a JSON array, Parquet, …), and its kind knows how it is
cut and read. Records are numbered from 0 within their part; the end of the job adds the records of the parts before.
"""

from sft_shards.preprocess.sources.find import find_sources
from sft_shards.preprocess.sources.kinds import KINDS, InputKind, kind_of
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import JsonBatch, RawBatch, TableBatch, parse
from sft_shards.preprocess.sources.reader import PartReader, cut, sample, whole_of
from sft_shards.preprocess.sources.source import Source

__all__ = [
    "KINDS",
    "InputKind",
    "JsonBatch",
    "Part",
    "PartReader",
    "RawBatch",
    "Source",
    "TableBatch",
    "cut",
    "find_sources",
    "kind_of",
    "parse",
    "sample",
    "whole_of",
]
