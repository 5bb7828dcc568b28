"""The fast way against the careful one: the same ids, masks and rejects, whatever the record; and the checks that watch it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.formats.records import FieldMap, formats, get
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch
from sft_shards.preprocess.pipeline.masks import masks, token_mask
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.read import read_plain
from sft_shards.preprocess.pipeline.render import Texts as FilledTexts
from sft_shards.preprocess.pipeline.tokenize import align, encode
from sft_shards.preprocess.pipeline.truncation import fit
from sft_shards.preprocess.sources import JsonBatch, RawBatch
from sft_shards.preprocess.tokenizer.backends import Fastokens, Flat, HuggingFace, choose_engine, hard_texts
from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths
from sft_shards.preprocess.tokenizer.nfc import settled
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

KINDS = ("bytes", "bytes-nfc", "spm", "metaspace")
WORDS = st.sampled_from(
    ["<|im_end|>", "<|im_start|>", "</s>", "<think>", "</think>", "[/INST]", "<0x0A>", "▁", "ﷺ", "e\u0301", "👩\u200d"]
)
CHARACTERS = st.sampled_from(
    [*"ab ,.\n\t\r\0'", "é", "\u0301", "\u2028", "日", "👩", "\u200d", "\ufdd0", "\ud800", "\U000f0000"]
)
TEXT = st.lists(WORDS | st.text(CHARACTERS | st.characters(), max_size=8), max_size=5).map("".join)
ROLE = st.sampled_from(["system", "user", "assistant", "tool", "robot", "human", "gpt"])
EXTRA = st.sampled_from([{}, {}, {"name": "x"}, {"weight": 0}, {"tool_calls": None}, {"content": None}, {"other": 1}])


def record_of(form, texts, roles, extra, beside):
    if form == "alpaca":
        return {"instruction": texts[0], "input": texts[1], "output": texts[-1], **beside}
    if form == "chatml":
        turns = zip(roles, texts, strict=False)
        return {"text": "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns), **beside}
    keys = ("from", "value") if form == "sharegpt" else ("role", "content")
    messages = [{keys[0]: role, keys[1]: text} for role, text in zip(roles, texts, strict=False)]
    messages[-1].update(extra)
    return {"messages": messages, **beside}


BESIDE = st.sampled_from([{}, {}, {"system": "S"}, {"tools": "[]"}, {"images": []}, {"id": 7}])
RECORD = st.builds(
    record_of,
    st.sampled_from(["alpaca", "chatml", "openai", "sharegpt"]),
    st.lists(TEXT, min_size=3, max_size=5),
    st.just(["user", "assistant"] * 3) | st.just(["human", "gpt"] * 3) | st.lists(ROLE, min_size=5, max_size=5),
    EXTRA,
    BESIDE,
)


def as_json(records, first=0) -> JsonBatch:
    return JsonBatch.of_texts(first, [json.dumps(record).encode() for record in records])


def plain_ones(form, records):
    """Rows, shapes and texts of what is plain."""
    plain = read_plain(get(form), as_json(records), FieldMap())
    return plain.rows.tolist(), [plain.role_sequences[number] for number in plain.sequence_ids], plain.texts.to_pylist()


@settings(max_examples=400)
@given(RECORD, st.sampled_from(sorted(formats())))
def test_a_plain_reading_is_the_reading(record, form):
    rows, shapes, texts = plain_ones(form, [record])
    if rows and all(text.strip() for text in texts):
        assert get(form).read(record, FieldMap()).text_only() == (shapes[0], texts)


@settings(max_examples=200)
@given(st.lists(RECORD | st.none() | st.just([]) | st.just({}), max_size=6), st.sampled_from(sorted(formats())))
def test_records_among_others_are_read_as_they_are_alone(records, form):
    alone = [plain_ones(form, [record]) for record in records]
    assert plain_ones(form, records) == (
        [at for at, (rows, _, _) in enumerate(alone) if rows],
        [shape for _, shapes, _ in alone for shape in shapes],
        [text for _, _, texts in alone for text in texts],
    )


@settings(max_examples=200)
@given(st.lists(RECORD, min_size=1, max_size=6), st.sampled_from(["alpaca", "chatml", "openai", "sharegpt"]))
def test_a_digest_is_that_of_the_conversation(records, form):
    plain = read_plain(get(form), as_json(records), FieldMap())
    for row, digest, first, last in zip(
        plain.rows, plain.digests(), plain.text_offsets, plain.text_offsets[1:], strict=False
    ):
        if all(text.strip() for text in plain.texts[first:last].to_pylist()):
            assert digest == get(form).read(records[row], FieldMap()).digest()


def careful(pipeline: Pipeline, found: RawBatch, form: str) -> tuple[list[int], list[list[int]], list[list[int]], list]:
    """What the careful way alone makes of records."""
    records, ids, mask, rejects = [], [], [], []
    outcomes = pipeline._careful(found.values(range(len(found))), get(form))
    for number, outcome in zip(found.numbers.tolist(), outcomes, strict=True):
        try:
            if isinstance(outcome, RecordError):
                raise outcome
            encoded, _ = fit(outcome.encoded, pipeline.config.max_length, pipeline.config.overlong)
        except RecordError as error:
            rejects.append((number, error.reason))
            continue
        records.append(number)
        ids.append(encoded.ids.tolist())
        mask.append(encoded.loss_mask.tolist())
    return records, ids, mask, rejects


def unpacked(batch: Batch) -> tuple[list[int], list[list[int]], list[list[int]], list]:
    cuts = np.cumsum(batch.lengths)[:-1]
    split = [
        [part.tolist() for part in np.split(flat, cuts)] if len(batch.lengths) else []
        for flat in (batch.ids, batch.loss_mask)
    ]
    return batch.records.tolist(), *split, [(one.record, one.reason) for one in batch.rejects]


def make_pipeline(
    folder: Path, template: str = "tokenizer", wrap: Callable = lambda engine: engine, **options
) -> Pipeline:
    tokenizer = Tokenizer(str(folder))
    config = JobConfig(inputs=("x",), tokenizer=str(folder), verify_every=0, **options)
    return Pipeline(config, template, tokenizer, wrap(choose_engine("auto", tokenizer, [])[0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["tokenizer", "alpaca", "vicuna"])
@pytest.mark.parametrize(
    "options", [{}, {"max_length": 30, "overlong": "truncate"}, {"straddle": "skip", "train_on": "last"}], ids=str
)
def test_both_ways_give_the_same(make_tokenizer, monkeypatch, kind, template, options):
    monkeypatch.setattr("sft_shards.preprocess.pipeline.pipeline.ALWAYS_VERIFIED", 0)
    pipeline = make_pipeline(make_tokenizer(kind), template, **options)

    @settings(max_examples=15)
    @given(st.sampled_from(["alpaca", "chatml", "openai", "sharegpt"]), st.lists(RECORD, min_size=1, max_size=12))
    def same(form, records):
        items = as_json(records, first=5)
        assert unpacked(pipeline.batch(items, form)) == careful(pipeline, items, form)

    same()


@pytest.mark.parametrize("name", ["alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", "openai_tools.jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_give_the_same_on_real_data(data, make_tokenizer, monkeypatch, name, kind):
    monkeypatch.setattr("sft_shards.preprocess.pipeline.pipeline.ALWAYS_VERIFIED", 0)
    raw = (data / name).read_text("utf-8")
    records = json.loads(raw) if name.endswith(".json") else [json.loads(line) for line in raw.split("\n") if line]
    form = name.split("_")[0]
    pipeline = make_pipeline(make_tokenizer(kind))
    items = as_json(records)
    calls: list[int] = []
    judge = pipeline._careful
    monkeypatch.setattr(pipeline, "_careful", lambda found, format_: calls.append(len(found)) or judge(found, format_))
    got = unpacked(pipeline.batch(items, form))
    fast = len(records) - sum(calls)
    assert got == careful(pipeline, items, form)
    assert fast > 0.8 * len(records) or kind == "metaspace" or name == "openai_tools.jsonl"


def set_aside(text):
    return (
        character
        for character in text
        if not "\ud800" <= character <= "\udfff" and not "\ufdc0" <= character <= "\ufdff"
    )


def texts_of(texts, spans):
    """Texts with trained spans in characters."""
    encoded = [text.encode() for text in texts]
    found = [[len(text[:at].encode()) for at in span] for text, own in zip(texts, spans, strict=True) for span in own]
    return FilledTexts(
        values=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        ends=np.cumsum([0, *map(len, encoded)]),
        begin_with=frozenset(texts),
        spans=np.asarray(found, dtype=np.int64).reshape(-1, 2),
        owner=np.repeat(np.arange(len(texts)), [len(own) for own in spans]),
    )


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_masks_by_lengths_are_masks_by_offsets(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    table = byte_lengths(tokenizer)
    engine = HuggingFace(tokenizer)

    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.text(CHARACTERS | st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30),
                st.lists(st.integers(0, 30), max_size=6, unique=True).map(sorted),
            ),
            min_size=1,
            max_size=4,
        ),
        st.booleans(),
    )
    @example([("0oul", [0, 2, 3, 4])], True)
    @example([("0oul", [0, 2, 3, 4])], False)
    def same(drawn, train_straddling):
        drawn = [("".join(set_aside(text)) or "a", cuts) for text, cuts in drawn]
        marked, expected = [], []
        for text, cuts in drawn:
            cuts = [cut for cut in cuts if cut <= len(text)]
            spans = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
            marked.append(spans)
            encoding = tokenizer.backend.encode(text, add_special_tokens=False)
            offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            expected.append(token_mask(offsets, spans, train_straddling=train_straddling))
        texts = [text for text, _ in drawn]
        flat = engine.encode(texts)
        given = texts_of(texts, marked)
        aligned = align(flat, given, table)
        got = masks(aligned, given, train_straddling=train_straddling)
        for number, (mask, straddling) in enumerate(expected):
            if aligned.sound[number]:
                assert got.loss_mask[flat.bounds[number] : flat.bounds[number + 1]].tolist() == mask.tolist()
                assert got.straddling[number] == straddling
                assert got.trained[number] == mask.sum()

    same()


def test_text_that_is_not_in_normal_form_takes_the_careful_way(make_tokenizer, monkeypatch):
    monkeypatch.setattr("sft_shards.preprocess.pipeline.pipeline.ALWAYS_VERIFIED", 0)
    texts = ["café", "cafe\u0301", "\u0958", "\u0301x", "naïve", "plain"]
    records = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]} for text in texts
    ]
    pipeline = make_pipeline(make_tokenizer("bytes-nfc"))
    seen: list[str] = []
    encode = pipeline.engine.encode
    monkeypatch.setattr(pipeline.engine, "encode", lambda given: seen.extend(given) or encode(given))
    batch = pipeline.batch(as_json(records), "openai")
    assert unpacked(batch) == careful(pipeline, as_json(records), "openai")
    assert batch.notes["normalized_or_lossy"] == 2
    assert [text in "".join(seen) for text in texts] == [True, False, False, False, True, True]


def test_a_typed_control_token_is_not_hidden_by_one_that_two_texts_make_together(make_tokenizer):
    renderer = make_pipeline(make_tokenizer("bytes"))._renderer
    renderer._forbidden = {"ab", "bc", "dd"}
    renderer._compile()
    texts = ["x", "a", "bc", "a", "b", "plain", "a dd"]
    assert renderer._strange(pa.array(texts)).tolist() == [False, True, True, True, False, False, True]


LONG = {
    "one character": "a" * 1_000_000,
    "spaces": " " * 300_000 + "x",
    "words": "the weather is fine " * 50_000,
    "every code point": "".join(
        chr(point) for point in range(0x20, 0x30000) if not 0xD800 <= point < 0xE000 and not 0xFDD0 <= point < 0xFDF0
    ),
    "lines": "\n" * 100_000,
}


@pytest.mark.parametrize("name", LONG)
def test_long_documents(bpe_folder, name):
    pipeline = make_pipeline(bpe_folder)
    record = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": LONG[name]}]}
    if name == "lines":
        record["messages"][1]["content"] += "x"
    items = as_json([record])
    assert unpacked(pipeline.batch(items, "openai")) == careful(pipeline, items, "openai")


class Joins:
    """An engine that is given all texts as one, and may get one id wrong."""

    name = "joins"
    joins = True

    def __init__(self, engine, change=None):
        self.engine, self.change, self.calls = engine, change, []

    def encode(self, texts):
        self.calls.append(len(texts))
        flat = self.engine.encode(texts)
        ids = flat.ids.copy()
        if self.change is not None and len(texts) == 1:
            ids[len(ids) // 2] = self.change
        return Flat(ids=ids, bounds=flat.bounds)


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_texts_that_begin_with_a_control_token_are_encoded_as_one(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    table = byte_lengths(tokenizer)
    opener = table.openers[0]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=12), min_size=2, max_size=8))
    def same(drawn):
        texts = [opener + "".join(set_aside(text)) for text in drawn]
        given = texts_of(texts, [[(len(opener), len(text))] if len(text) > len(opener) else [] for text in texts])
        got = encode(Joins(HuggingFace(tokenizer)), given, table)
        expected = align(HuggingFace(tokenizer).encode(texts), given, table)
        assert np.array_equal(got.flat.ids, expected.flat.ids)
        assert np.array_equal(got.flat.bounds, expected.flat.bounds)
        assert np.array_equal(got.sound, expected.sound)
        assert np.array_equal(got.places, expected.places)

    same()
    engine = Joins(HuggingFace(tokenizer))
    encode(engine, texts_of([opener + "a b", opener + "c", opener + "naïve"], [[], [], []]), table)
    assert engine.calls == [1]


@pytest.mark.parametrize("change", [0, 5, 100, 700, 1400])
def test_a_difference_in_texts_encoded_as_one_leads_to_each_by_itself(make_tokenizer, change):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    table = byte_lengths(tokenizer)
    texts = [table.openers[0] + text for text in ("ask about it", "the second one is longer", "and a third")]
    engine = Joins(HuggingFace(tokenizer), change)
    got = encode(engine, texts_of(texts, [[], [], []]), table)
    assert engine.calls == [1, 3]
    assert np.array_equal(got.flat.ids, HuggingFace(tokenizer).encode(texts).ids)


@pytest.mark.parametrize("texts", [["plain", "words"], ["<|im_start|>e", "\u0301 alone"]])
def test_texts_that_might_run_into_each_other_are_encoded_one_by_one(make_tokenizer, texts):
    tokenizer = Tokenizer(str(make_tokenizer("bytes-nfc")))
    engine = Joins(HuggingFace(tokenizer))
    encode(engine, texts_of(texts, [[], []]), byte_lengths(tokenizer))
    assert engine.calls == [2]


class Planted:
    """An engine that gives one wrong id now and then."""

    name = "planted"
    joins = False

    def __init__(self, engine, when, change):
        self.engine, self.when, self.change = engine, when, change

    def encode(self, texts):
        flat = self.engine.encode(texts)
        ids = flat.ids.copy()
        for number, text in enumerate(texts):
            if self.when in text:
                at = flat.bounds[number] + 3
                ids[at] = self.change(int(ids[at]))
        return Flat(ids=ids, bounds=flat.bounds)


def record(number):
    return {
        "messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": f"answer number {number}."}]
    }


@pytest.mark.parametrize("change", [lambda number: (number + 1) % 1500, lambda number: 7, lambda number: 1400])
def test_a_planted_difference_is_caught_and_named(make_tokenizer, change):
    pipeline = make_pipeline(make_tokenizer("bytes"), wrap=lambda engine: Planted(engine, "number 733.", change))
    records = [record(number) for number in range(1000)]
    for begin in (0, 250):
        pipeline.batch(as_json(records[begin : begin + 250], begin), "openai")
    found = r"record 733: planted gives other ids than Hugging Face from token 3 on.*--tokenizer-engine hf"
    with pytest.raises(DataError, match=found):
        pipeline.batch(as_json(records[500:], 500), "openai")


def test_a_difference_that_no_sum_shows_is_found_by_the_sample(make_tokenizer):
    folder = make_tokenizer("bytes")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    token, twin = next(
        (a, a[::-1])
        for a in vocabulary
        if len(a) == 2 and a != a[::-1] and a[::-1] in vocabulary and a.isalpha() and a.isascii()
    )
    swap = {vocabulary[token]: vocabulary[twin]}
    text = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": token}]}

    class Swapped(Planted):
        def encode(self, texts):
            flat = self.engine.encode(texts)
            return Flat(
                ids=np.asarray([swap.get(int(number), number) for number in flat.ids], dtype=np.int32),
                bounds=flat.bounds,
            )

    pipeline = make_pipeline(folder, wrap=lambda engine: Swapped(engine, "", None))
    with pytest.raises(DataError, match=r"record 0: .* gives other ids"):
        pipeline.batch(as_json([text]), "openai")


def test_the_sample_is_seeded_and_of_the_size_asked_for(make_tokenizer, monkeypatch):
    monkeypatch.setattr("sft_shards.preprocess.pipeline.pipeline.ALWAYS_VERIFIED", 0)
    pipeline = make_pipeline(make_tokenizer("bytes"))
    object.__setattr__(pipeline.config, "verify_every", 100)
    chosen = pipeline._sampled(np.arange(100_000))
    assert 900 < chosen.sum() < 1100
    assert chosen.tolist() == [bool(pipeline._sampled(np.arange(at, at + 1))[0]) for at in range(100_000)]


def test_fastokens_gives_hugging_face_s_ids_on_hard_texts(make_tokenizer):
    for kind in ("bytes", "bytes-nfc", "spm"):
        tokenizer = Tokenizer(str(make_tokenizer(kind)))
        engine, why = choose_engine("auto", tokenizer, ["a sample"])
        assert isinstance(engine, Fastokens), why
        texts = list(map(settled, hard_texts(tokenizer)))
        got, expected = engine.encode(texts), HuggingFace(tokenizer).encode(texts)
        assert np.array_equal(got.ids, expected.ids)
        assert np.array_equal(got.bounds, expected.bounds)


def test_an_engine_that_cannot_be_used_is_replaced_or_refused(make_tokenizer, monkeypatch):
    metaspace = Tokenizer(str(make_tokenizer("metaspace")))
    engine, why = choose_engine("auto", metaspace, [])
    assert (engine.name, "because fastokens cannot be used" in why) == ("hf", True)
    with pytest.raises(UsageError, match="--tokenizer-engine fastokens: cannot be used"):
        choose_engine("fastokens", metaspace, [])
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    assert choose_engine("hf", tokenizer, [])[0].name == "hf"
    encode = Fastokens.encode
    monkeypatch.setattr(
        Fastokens,
        "encode",
        lambda self, texts: Planted(
            type("E", (), {"encode": lambda _, t: encode(self, t)})(), "my sample", lambda number: 0
        ).encode(texts),
    )
    engine, why = choose_engine("auto", tokenizer, ["my sample text"])
    assert (engine.name, "'my sample text'" in why) == ("hf", True)
