"""Every value of a manifest replaced by one of another kind, with a hash that fits: one error or findings, never a traceback."""

import copy
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, config

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Manifest, ShardDirectory
from sft_shards.formats.shards.files import json_bytes
from sft_shards.preprocess.directories.compare import compare, summary, table
from sft_shards.preprocess.directories.verify import verify
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.unit
ODD = (None, True, -1, 0, 1.5, 1 << 80, "", "../x", "/etc/passwd", "a\0b", "\u202e", [], [None], {}, {"../x": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    source = tmp_path_factory.mktemp("in") / "in.jsonl"
    source.write_bytes(b"".join(INPUTS[0].read_bytes().splitlines(keepends=True)[:6]))
    run(config([source], max_length=600, valid_fraction=0.0), output, workers=1)
    return output


def places(value, place=()):
    """The place of every value in a JSON document, as the keys and numbers that lead to it."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def put(raw, place, value):
    *way, last = place
    for key in way:
        raw = raw[key]
    raw[last] = value


def test_no_value_of_a_manifest_is_a_traceback(made, tmp_path):
    directory = Path(shutil.copytree(made, tmp_path / "out"))
    whole = json.loads((made / "manifest.json").read_text("utf-8"))
    del whole["sha256"]
    refused = read = 0
    for place in places(whole):
        if place[0] in ("config", "versions") and len(place) > 1:
            continue  # these hold whatever they hold
        for value in ODD:
            raw = copy.deepcopy(whole)
            put(raw, place, value)
            raw["sha256"] = hashlib.sha256(json_bytes(raw)).hexdigest()
            (directory / "manifest.json").write_bytes(json_bytes(raw))
            try:
                Manifest.read(directory)
            except DataError as error:
                assert "\n" not in str(error), (place, value)
                refused += 1
                continue
            read += 1
            assert isinstance(verify(directory, quick=True), list)
            table([summary(directory)])
            compare(made, directory)
            try:
                for split in ("train",):
                    ShardDirectory(directory).split(split)
            except ValueError as error:  # DataError, or UsageError where there is no such split
                assert "\n" not in str(error), (place, value)
    assert refused > 2 * read > 0
