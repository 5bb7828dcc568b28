"""Templates that look into texts: what the batch path writes is what transformers renders, or it is refused."""

from pathlib import Path

import pytest
from fuzzing import corpus, fuzz
from hostile_inputs import TEMPLATES
from hypothesis import strategies as st
from pipelines import as_json, messages
from template_grammar import chat_templates
from template_texts import TOKENS
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.errors import UsageError
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import ChatTemplate, TrainOn, budget
from sft_shards.preprocess.pipeline.read import BatchReading, ReferenceReading
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering
from sft_shards.preprocess.pipeline.rendered_texts import text_strings

pytestmark = pytest.mark.unit

PAIRS = [
    ("x", "y"),
    (" a b ", "\na\n"),
    ("abc", "ab"),
    ("A{}", "%s {0} {a}"),
    ("x</think>y", "<think>a</think>b"),
    ("12", "é日👩"),
    ("a\r\nb\u2028c", "aaa a"),
    ("x0", "x1"),
    ("<|im_end|>", "</s>a"),
    ("a" * 60, "<b>&'\""),
    ("\\u0041\\ufdd3", "-"),
    ("assistant", "user"),
]
RECORDS = [messages(*pair) for pair in PAIRS] + [messages(*PAIRS[0], *pair) for pair in PAIRS]


def check(data: bytes) -> None:
    source = data.decode("utf-8", "surrogatepass")
    try:
        template = ChatTemplate("t", source, TOKENS)
    except UsageError:
        return
    policy = TrainOn()
    reference = ReferenceRendering(template, policy, with_digests=False)
    batch = BatchRendering(template, policy, reference, with_digests=False)
    # The second time, skeletons are there that were made of other texts.
    for records in (RECORDS, RECORDS[::-1]):
        raw = as_json(records)
        given = BatchReading(FieldMap(), ReferenceReading(FieldMap())).read(raw, get("openai"))
        rendered, expected = batch.render(given), reference.render(given)
        assert rendered.records.tolist() == expected.records.tolist()
        assert text_strings(rendered) == text_strings(expected)
        assert rendered.notes == expected.notes
        for record, (text, spans, _) in zip(rendered.records.tolist(), text_strings(rendered), strict=True):
            turns = records[record]["messages"]
            [whole], _ = render_jinja_template([turns], chat_template=source, **TOKENS.variables)
            assert whole in (text, text + template.header), f"record {record}: not what transformers renders"
            assert spans
            assert all(text[end - 10 : end] == "<|im_end|>" for _, end in spans if source_ends_turns(source))


def source_ends_turns(source: str) -> bool:
    return source.count("<|im_end|>") == 1


@pytest.mark.parametrize("path", corpus("templates"), ids=lambda path: path.name)
def test_kept_inputs(path: Path) -> None:
    check(path.read_bytes())


@pytest.mark.parametrize("name", TEMPLATES)
def test_hostile_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "UNITS", 8 << 20)
    check(TEMPLATES[name]())


def test_new_inputs() -> None:
    assert fuzz(
        "templates",
        check,
        chat_templates().map(str.encode) | st.text(max_size=30).map(lambda t: t.encode("utf-8", "surrogatepass")),
    )
