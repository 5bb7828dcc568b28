"""The records of each kind that the throughput benchmark makes are of the format that it says."""

import json

import pytest

from benchmarks.throughput.kinds import CUSTOM_FORMAT, KINDS
from sft_shards.formats.records import FieldMap, detect, get

pytestmark = pytest.mark.unit

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather like?"},
    {"role": "assistant", "content": "It is clear, and will be."},
    {"role": "user", "content": "And at night?"},
    {"role": "assistant", "content": "Clear as well."},
]


@pytest.mark.parametrize("name", KINDS)
def test_ours_and_the_loop_get_the_same_conversation(name):
    kind = KINDS[name]
    record, other = (json.loads(json.dumps(make(MESSAGES, 3))) for make in (kind.make, kind.loop or kind.make))
    if kind.record_format == "pairs":
        scope = {}
        exec(CUSTOM_FORMAT, scope)  # as a module of another package
        read = scope["Pairs"]().read
    else:
        read = get(kind.record_format).read
        assert detect([(0, record)] * 2, FieldMap(), "x") is get(kind.record_format)
    own, loop = read(record, FieldMap()), get("openai").read(other, FieldMap())
    assert [(turn.role, turn.content) for turn in own.turns] == [(turn.role, turn.content) for turn in loop.turns]
    assert own.tools == loop.tools
