"""Random templates and conversations: what is written is exact by the rule, or refused; both paths give the same.

The judge is the oracle of `benchmarks/templates`, which renders with transformers and encodes with tokenizers alone.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preprocess_jobs import TOKENIZER
from turn_grammar import conversations, templates

from sft_shards.formats.errors import UsageError

pytestmark = pytest.mark.unit
EXAMPLES = int(os.environ.get("SFT_SHARDS_GRAMMAR_EXAMPLES", "10"))
"""Templates that are drawn; each is tried on several conversations."""


@pytest.fixture(scope="module")
def judge_all():
    """Return a function that gives a verdict for each record under a template."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[3]))
        modules = {
            name: importlib.import_module(f"benchmarks.templates.{name}")
            for name in ("conversations", "oracle", "pipelines", "runner", "tokenizers")
        }

    def verdicts(source, stop, records):
        family = modules["tokenizers"].Family(word="", name="drawn", stops=(stop,))
        cases = [
            modules["conversations"].Case(name=str(number), record=record) for number, record in enumerate(records)
        ]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            modules["tokenizers"].make_tokenizer(Path(TOKENIZER), source, family, folder)
            try:
                pipelines = modules["pipelines"].Pipelines(folder)
            except UsageError:
                return []
            oracle = modules["oracle"].Oracle(folder, family.stops)
            return modules["runner"].judge_cases(oracle, pipelines, cases)

    return verdicts


@settings(max_examples=EXAMPLES)
@given(templates(), st.lists(conversations(), min_size=1, max_size=4))
def test_what_is_written_is_exact_by_the_rule(judge_all, template, records):
    source, stop = template
    for verdict, reason, detail in judge_all(source, stop, records):
        assert verdict != "wrong", f"{reason}\n{detail}\n{source}"
