"""The pipeline against the reference pipeline: the same batches, whatever the record."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import FORM, KINDS, RECORD, TOOLS, as_json, as_lists, make_pipeline, messages

pytestmark = pytest.mark.unit


@pytest.fixture
def _no_verification(monkeypatch):
    """A pipeline that compares nothing by itself."""
    monkeypatch.setattr("sft_shards.preprocess.pipeline.sample.PER_KIND", 0)


@pytest.mark.usefixtures("_no_verification")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["tokenizer", "alpaca", "vicuna"])
@pytest.mark.parametrize(
    "options", [{}, {"max_length": 30, "overlong": "truncate"}, {"straddle": "skip", "train_on": "last"}], ids=str
)
def test_both_pipelines_give_the_same(make_tokenizer, kind, template, options):
    pipeline = make_pipeline(make_tokenizer(kind), template, valid_fraction=0.2, dedup=True, **options)

    @settings(max_examples=8)
    @given(FORM, st.lists(RECORD, min_size=1, max_size=12))
    def same(form, records):
        raw = as_json(records, first=5)
        assert as_lists(pipeline.batch(raw, form)) == as_lists(pipeline.reference.batch(raw, form))

    same()


def records_of(path):
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.usefixtures("_no_verification")
@pytest.mark.parametrize("name", ["alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", "openai_tools.jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_pipelines_give_the_same_on_real_data(data, make_tokenizer, name, kind):
    records, form = records_of(data / name), name.split("_")[0]
    pipeline, raw = make_pipeline(make_tokenizer(kind)), as_json(records)
    assert as_lists(pipeline.batch(raw, form)) == as_lists(pipeline.reference.batch(raw, form))
    fallbacks = pipeline.fallbacks
    if name != "openai_tools.jsonl":
        assert fallbacks["read"] + fallbacks["render"] < 0.2 * len(records)
    assert fallbacks["tokenize"] < 0.2 * len(records) or kind == "metaspace"


@pytest.mark.usefixtures("_no_verification")
@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_a_record_with_tools_is_tokenized_with_the_others(make_tokenizer, kind):
    """Three records, of which one is read by itself and rendered by Jinja: the backend is given all three at once."""
    given_ = []

    class Watching:
        prefers_joined = False

        def __init__(self, backend):
            self.backend, self.name = backend, backend.name

        def encode(self, texts):
            given_.append(len(texts))
            return self.backend.encode(texts)

    pipeline = make_pipeline(make_tokenizer(kind), wrap=Watching)
    tools = [{**TOOLS[0], "function": {"name": "naïve"}}]
    raw = as_json([messages("a", "b"), messages("c", "d") | {"functions": tools}, messages("e", "f")])
    batch = pipeline.batch(raw, "openai")
    assert given_ == [3]
    assert pipeline.fallbacks == {"read": 1, "render": 1, "tokenize": 0, "truncate": 0}
    assert batch.notes == {"tools_ignored": 1}
    assert as_lists(batch) == as_lists(pipeline.reference.batch(raw, "openai"))


@pytest.mark.usefixtures("_no_verification")
def test_a_record_that_is_read_by_itself_is_rendered_with_the_others(make_tokenizer):
    """A list of texts as a content is beyond the columns; what it says is text alone."""
    parts = {
        "messages": [
            {"role": "user", "content": ["a"]},
            {"role": "assistant", "content": "b"},
        ]
    }
    pipeline = make_pipeline(make_tokenizer("bytes"))
    raw = as_json([messages("a", "b"), parts])
    batch = pipeline.batch(raw, "openai")
    assert pipeline.fallbacks == {"read": 1, "render": 0, "tokenize": 0, "truncate": 0}
    assert batch.lengths[0] == batch.lengths[1]


LONG = {
    "one character": "a" * 400_000,
    "spaces": " " * 300_000 + "x",
    "words": "the weather is fine " * 20_000,
    "every code point": "".join(
        chr(point) for point in range(0x20, 0x30000) if not 0xD800 <= point < 0xE000 and not 0xFDD0 <= point < 0xFDF0
    ),
    "lines": "\n" * 100_000 + "x",
}


@pytest.mark.parametrize("name", LONG)
def test_long_documents(bpe_folder, name):
    pipeline = make_pipeline(bpe_folder)
    raw = as_json([messages("go", LONG[name])])
    assert as_lists(pipeline.batch(raw, "openai")) == as_lists(pipeline.reference.batch(raw, "openai"))
