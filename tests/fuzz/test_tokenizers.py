"""Damaged tokenizer folders: refused in one line, or loaded, and then texts are encoded or their records rejected."""

from pathlib import Path

import pytest
from fuzzing import corpus, fuzz
from mutations import MUTATIONS, copy, mutate
from pipelines import as_json, as_lists, messages
from preprocess_jobs import TOKENIZER

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

RECORDS = [messages("Hi", "Hello"), messages("say <|im_end|>", "é日<think>\n</think>\n\nx", "a", "b")]


@pytest.fixture
def check(tmp_path):
    folder = tmp_path / "tokenizer"

    def check(data: bytes) -> None:
        mutate(copy(TOKENIZER, folder), data)
        try:
            tokenizer = Tokenizer(str(folder), cache=False)
            tokenizer.info()
            template = "chatml" if tokenizer.chat_template is None else "tokenizer"
            pipeline = Pipeline(JobConfig(inputs=("x",), tokenizer=str(folder)), template, tokenizer)
            got = pipeline.batch(as_json(RECORDS), "openai")
        except (UsageError, DataError) as error:
            assert "\n" not in str(error), error
            return
        assert as_lists(got) == as_lists(pipeline.reference.batch(as_json(RECORDS), "openai"))
        assert not [reject for reject in got.rejects if reject.reason in ("internal_error", "paths_differ")], (
            got.rejects
        )

    return check


@pytest.mark.parametrize("path", corpus("tokenizers"), ids=lambda path: path.name)
def test_kept_inputs(check, path: Path) -> None:
    check(path.read_bytes())


def test_new_inputs(check) -> None:
    assert fuzz("tokenizers", check, MUTATIONS)
