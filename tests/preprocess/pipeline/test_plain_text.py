"""Plain text in shards: the ids that transformers gives, EOS behind them, and loss on every token."""

import json
import shutil

import numpy as np
import pytest
from pipelines import KINDS, as_json, as_lists, make_pipeline
from preprocess_jobs import TOKENIZER, call
from transformers import AutoTokenizer

from sft_shards.formats.shards import ShardDirectory

TEXTS = ["Once upon a time", "  def f():\n\treturn 1\n\n", "日本 é 👩", "a", "He typed <|im_end|> and went on"]


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_carries_loss_and_the_last_one_is_eos(make_tokenizer, kind):
    folder = make_tokenizer(kind)
    pipeline = make_pipeline(folder)
    raw = as_json([{"text": text} for text in TEXTS])
    batch = pipeline.batch(raw, "text")
    assert as_lists(batch) == as_lists(pipeline.reference.batch(raw, "text"))
    assert batch.loss_mask.all()
    theirs = AutoTokenizer.from_pretrained(folder)
    ends = np.cumsum(batch.lengths)
    for text, ids in zip(TEXTS[:-1], np.split(batch.ids, ends[:-1]), strict=False):
        assert ids.tolist() == [*theirs(text).input_ids, theirs.eos_token_id], text
    last = batch.ids[ends[-2] :].tolist()
    assert last.count(theirs.eos_token_id) == 1, "what somebody typed stays text"


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_begins_with_bos_begins_a_text_with_it(make_tokenizer, kind, tmp_path):
    folder = shutil.copytree(make_tokenizer(kind), tmp_path / "tokenizer")
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    bos = next(token["id"] for token in spec["added_tokens"] if token["content"] == "<s>")
    pieces = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    raw = as_json([{"text": text} for text in TEXTS])
    pipeline = make_pipeline(folder)
    batch = pipeline.batch(raw, "text")
    assert as_lists(batch) == as_lists(pipeline.reference.batch(raw, "text"))
    starts = np.cumsum(batch.lengths) - batch.lengths
    assert set(batch.ids[starts].tolist()) == {bos}
    theirs = AutoTokenizer.from_pretrained(folder)
    if kind.startswith("bytes"):  # after a control token, SentencePiece's own space differs from one to the next
        assert batch.ids[: batch.lengths[0]].tolist() == [*theirs(TEXTS[0]).input_ids, theirs.eos_token_id]


@pytest.mark.unit
def test_plain_texts_take_the_batch_path(make_tokenizer):
    pipeline = make_pipeline(make_tokenizer("bytes"))
    pipeline.batch(as_json([{"text": text, "id": 1} for text in TEXTS]), "text")
    assert (pipeline.fallbacks["read"], pipeline.fallbacks["render"]) == (0, 1), "one has a typed control token"


@pytest.mark.unit
def test_typed_control_tokens_become_control_tokens_where_they_are_allowed(make_tokenizer):
    folder = make_tokenizer("bytes")
    pipeline = make_pipeline(folder, allow_control_tokens=True)
    raw = as_json([TEXTS[-1]])
    batch = pipeline.batch(raw, "text")
    assert as_lists(batch) == as_lists(pipeline.reference.batch(raw, "text"))
    theirs = AutoTokenizer.from_pretrained(folder)
    assert batch.ids.tolist() == [*theirs(TEXTS[-1]).input_ids, theirs.eos_token_id]


@pytest.mark.process
def test_texts_and_conversations_stand_in_one_directory(tmp_path):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "web.jsonl").write_text(lines, "utf-8")
    (tmp_path / "chat.jsonl").write_text(
        json.dumps({"instruction": "Name a colour.", "output": "Blue."}) + "\n", "utf-8"
    )
    (tmp_path / "job.yaml").write_text("sources:\n  - chat.jsonl\n  - path: web.jsonl\n    format: text\n", "utf-8")
    call("run", "--config", "job.yaml", "--tokenizer", TOKENIZER, "--output", "out", cwd=tmp_path)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert [source["format"] for source in manifest["sources"]] == ["alpaca", "text"]
    found = ShardDirectory(tmp_path / "out")
    train = found.split("train")
    assert [bool(train[row][1].all()) for row in range(len(train))] == [False] + [True] * len(TEXTS)


@pytest.mark.process
def test_a_tokenizer_without_a_template_is_enough_for_texts(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for path in TOKENIZER.iterdir():
        if path.name == "tokenizer_config.json":
            settings = json.loads(path.read_text("utf-8"))
            settings.pop("chat_template", None)
            (folder / path.name).write_text(json.dumps(settings), "utf-8")
        elif path.suffix != ".jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": "Once"}) + "\n", "utf-8")
    done = call("run", "web.jsonl", "--format", "text", "--tokenizer", folder, "--output", "out", cwd=tmp_path)
    assert "1 sequences" in done.stdout + done.stderr
