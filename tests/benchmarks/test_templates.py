"""The benchmark of chat templates: its conversations, what it collects, and what its oracle calls wrong."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from preprocess_jobs import TOKENIZER
from template_texts import CHATML

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> object:
    """Import a module of the benchmark, which no distribution has."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.templates.{name}")

    return load


def test_there_are_conversations_of_every_kind(module) -> None:
    cases = module("conversations").conversations()
    assert len(cases) >= 150
    assert sum(case.agentic for case in cases) >= 50
    assert len({case.name for case in cases}) == len(cases)
    json.dumps([case.record for case in cases])


def test_templates_are_collected_once(module, tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text(CHATML)
    (tmp_path / "b.jinja").write_text("no template")
    (tmp_path / "c.json").write_text(json.dumps({"models": [{"model_name": "m", "chat_template": CHATML + " "}]}))
    found = dict(module("collect").found_in(tmp_path))
    assert found == {"a": CHATML, "b": "no template", "m": CHATML + " "}


@pytest.fixture
def oracle(module, tmp_path: Path) -> object:
    tokenizers = module("tokenizers")
    tokenizers.make_tokenizer(Path(TOKENIZER), CHATML, ("<|im_end|>",), tmp_path / "tokenizer")
    return module("oracle").Oracle(str(tmp_path / "tokenizer"), ("<|im_end|>",))


def test_oracle_trains_the_answer_and_its_stop_token(oracle) -> None:
    expected = oracle.expect(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello <|im_end|> you"}], None
    )
    control = oracle.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert expected.ids.count(control) == 2  # the one that is typed is text
    trained = [expected.ids[at] for at in sorted(expected.must)]
    assert oracle.tokenizer.decode(trained, skip_special_tokens=False) == "Hello <|im_end|> you<|im_end|>"
    assert (expected.rewritten, expected.unclosed, expected.lost) == ((), (), ())


def test_a_mask_that_differs_by_a_token_is_wrong(module, oracle) -> None:
    judge = module("oracle").judge
    expected = oracle.expect([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], None)
    mask = [int(at in expected.must) for at in range(len(expected.ids))]
    assert judge(expected, expected.ids, mask) == "exact"
    last = max(expected.must)
    assert judge(expected, expected.ids, [*mask[:last], 0, *mask[last + 1 :]]) == "loss is missing"
    assert judge(expected, expected.ids, [1, *mask[1:]]) == "loss where none belongs"
    assert judge(expected, expected.ids[:-1], mask[:-1]) == "ids differ"


def test_a_turn_whose_calls_are_not_rendered_is_lost(module, oracle) -> None:
    messages = [{"role": "user", "content": "Weather?"}, *module("conversations").calls("Bern")]
    assert 1 in oracle.expect(messages, None).lost
