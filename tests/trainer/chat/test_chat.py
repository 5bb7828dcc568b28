"""`sft-train chat`: answers of a model that is known to the token, who stopped, and how near the reference is."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bigram_model import write_bigram_model
from preprocess_jobs import TOKENIZER, call
from toy_runs import random_pairs, sft_train, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.chat import generation, references, scores
from sft_shards.trainer.chat.cli import Asking, converse

pytestmark = pytest.mark.process

ANSWER = " the world"
USER, ASSISTANT = {"role": "user", "content": "one"}, {"role": "assistant", "content": " two"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bigram_model(tmp_path_factory.mktemp("model") / "stops", [" the", " world"])


@pytest.fixture(scope="module")
def loaded(model: Path) -> generation.ChatModel:
    return generation.load(str(model), adapter=None, device="cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    conversations = [[("user", "one"), ("assistant", ANSWER)], [("user", "two"), ("assistant", "another world")]]
    conversations += [[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", ANSWER)]]
    lines = [
        json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) for turns in conversations
    ]
    (folder / "in.jsonl").write_text("\n".join(lines))
    call("run", folder / "in.jsonl", "--tokenizer", TOKENIZER, "--output", folder / "shards")
    return folder / "shards"


def test_an_answer_ends_by_itself_or_is_cut(loaded: generation.ChatModel, tmp_path: Path) -> None:
    shown: list[str] = []
    prompt = loaded.prompt([{"role": "user", "content": "What?"}])
    answer = loaded.answer(prompt, limit=50, show=shown.append)
    assert answer == generation.Answer(text=ANSWER, tokens=3, stop="<|im_end|>")
    assert "".join(shown) == ANSWER, "streamed whole, once, without the stop token"
    assert loaded.answer(prompt, limit=2).stop == "", "the limit came first"
    endless = generation.load(
        str(write_bigram_model(tmp_path / "endless", [" the", " world"], stop=False)), adapter=None, device="cpu"
    )
    assert endless.answer(prompt, limit=7).tokens == 7
    assert endless.answer(prompt, limit=7).stop == ""


def test_the_template_gets_the_arguments_that_the_model_was_trained_with(model: Path, tmp_path: Path) -> None:
    import shutil

    from template_texts import ARGUED

    folder = Path(shutil.copytree(model, tmp_path / "argued"))
    (folder / "chat_template.jinja").write_text(ARGUED)
    (folder / "chat_template_kwargs.json").write_text('{"enable_thinking": false}')
    messages = [{"role": "user", "content": "What?"}]
    for given, expected in (
        ({}, {"enable_thinking": False}),
        ({"enable_thinking": True, "reasoning_effort": "high"}, {"enable_thinking": True, "reasoning_effort": "high"}),
    ):
        chat = generation.load(str(folder), adapter=None, device="cpu", arguments=given)
        reference = chat.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, chat_template=ARGUED, **expected
        )
        assert chat.prompt(messages) == list(reference)
    with pytest.raises(UsageError, match=r"--template-arg thinking: the chat template of .* does not use it"):
        generation.load(str(folder), adapter=None, device="cpu", arguments={"thinking": True})
    (folder / "chat_template_kwargs.json").write_text('{"messages": []}')
    with pytest.raises(DataError, match=r"chat_template_kwargs\.json: no arguments of a chat template .*messages"):
        generation.load(str(folder), adapter=None, device="cpu")


def test_stop_tokens_are_those_of_the_folder(model: Path, tmp_path: Path) -> None:
    """Id 0 is a stop token like any other, and several may end an answer."""
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    config = json.loads((folder / "generation_config.json").read_text())
    world = generation.load(str(model), adapter=None, device="cpu").tokenizer.encode(" world")[0]
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [0, world]}))
    other = generation.load(str(folder), adapter=None, device="cpu")
    assert other.stops == (0, world)
    assert other.answer(other.prompt([{"role": "user", "content": "What?"}]), limit=9).tokens == 2


def test_a_conversation_keeps_its_turns_until_it_starts_over(
    loaded: generation.ChatModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    class Recorded(generation.ChatModel):
        def prompt(self, messages: generation.Messages) -> list[int]:
            asked.append([message["content"] for message in messages])
            return super().prompt(messages)

    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("first\n\nsecond\n/new\nthird\n"))
    recorded = Recorded(**vars(loaded))
    converse(Asking(chat=recorded, system="be brief", limit=20, temperature=0.0, as_json=False))
    assert asked == [["be brief", "first"], ["be brief", "first", ANSWER, "second"], ["be brief", "third"]]
    out, err = capsys.readouterr()
    assert out == f"{ANSWER}\n" * 3
    assert err.count("[stopped by itself with <|im_end|> after 3 tokens]") == 3


TEMPLATES = {
    "its own": None,
    "generation blocks": "{% for m in messages %}{{ bos_token or '' }}{{ m.role }}: {% generation %}{{ m.content }}"
    "{% endgeneration %}\n{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}",
    "named": {"default": "{{ messages[0].content | trim }}\nassistant\n", "tool_use": "{{ tools | length }}"},
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_transformers_own(loaded: generation.ChatModel, name: str) -> None:
    tokenizer = copy.copy(loaded.tokenizer)
    if TEMPLATES[name] is not None:
        tokenizer.chat_template = TEMPLATES[name]
    model = dataclasses.replace(loaded, tokenizer=tokenizer)
    for messages in (
        [{"role": "user", "content": " Hé\n"}],
        [{"role": "system", "content": "x"}, USER, ASSISTANT, USER],
    ):
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert model.prompt(messages) == list(expected)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "template"),
        ("{{ 'x' * 10 ** 9 }}", "template"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('no\nsuch') }}", "no such"),
        ("{% if %}", "line 1"),
    ],
)
def test_a_template_beyond_its_bounds_is_one_line(loaded: generation.ChatModel, template: str, words: str) -> None:
    tokenizer = copy.copy(loaded.tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=f"its chat template refuses this conversation .*{words}") as caught:
        dataclasses.replace(loaded, tokenizer=tokenizer).prompt([USER])
    assert "\n" not in str(caught.value)


def test_the_command_answers(model: Path) -> None:
    done = sft_train("chat", model, "-p", "one", "-p", "two", "--device", "cpu")
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n" * 2), done.stderr
    assert done.stderr.splitlines() == ["[stopped by itself with <|im_end|> after 3 tokens]"] * 2


def test_answers_beside_references(model: Path, shards: Path) -> None:
    done = sft_train("chat", model, "--shards", shards, "--rows", "0-2", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["row"], line["turn"]) for line in lines] == [(0, 1), (1, 1), (2, 1), (2, 2)]
    assert [line["reference"] for line in lines] == [ANSWER, "another world", "b", ANSWER]
    assert [line["exact"] for line in lines] == [True, False, False, True]
    assert all(line["stop"] == "<|im_end|>" for line in lines)
    assert "4 answers: 2 equal to the reference, 4 stopped by themselves" in done.stderr
    shown = sft_train("chat", model, "--shards", shards, "--rows", "1", "--device", "cpu")
    assert shown.stdout.splitlines()[0] == "train row 1, answer 1 of 1"
    assert "  reference: another world\n  model:      the world\n  not equal, ROUGE-L 0.500, chrF " in shown.stdout


def test_scores_against_the_definition() -> None:
    """ROUGE-L by hand: the longest common subsequence over words (characters in Chinese), as an F-measure."""
    score = scores.Scorer()
    assert score(" a b ", "a b") == scores.Score(exact=True, rouge_l=1.0, chrf=100.0)
    assert score("the cat sat", "the dog sat down").rouge_l == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert score("你好吗", "你好").rouge_l == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert score("x", "y").chrf == 0.0


def test_rows() -> None:
    assert references.parse_rows("0-3,17", 18, where="s") == [0, 1, 2, 3, 17]
    for wrong, words in (("3-1", "outside rows 0-17 of s"), ("18", "outside"), ("a", "neither a row"), ("", "neither")):
        with pytest.raises(UsageError, match=words):
            references.parse_rows(wrong, 18, where="s")


def refused(code: int, words: str, *arguments: object) -> None:
    done = sft_train("chat", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("sft-train: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"


def test_calls_that_are_wrong(model: Path, shards: Path, tmp_path: Path) -> None:
    refused(2, "no such folder", tmp_path / "nothing", "-p", "x")
    refused(2, "holds no model (no config.json)", tmp_path, "-p", "x")
    refused(2, "holds no adapter (no adapter_config.json)", model, "--adapter", tmp_path, "-p", "x")
    refused(2, "two ways to ask", model, "-p", "x", "--shards", shards)
    refused(2, "--rows is for --shards", model, "--rows", "1")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere"}')
    refused(2, "which is not here", tmp_path, "-p", "x")
    (tmp_path / "config.json").write_text("{}")
    refused(1, "cannot be loaded", tmp_path, "-p", "x")


def test_a_row_outside_and_another_vocabulary(loaded: generation.ChatModel, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outside rows 0-2"):
        references.open_rows(str(shards), "train", "7", loaded)
    other = write_shards(tmp_path / "toy", {"train": random_pairs(3, seed=1)})
    with pytest.raises(DataError, match="is not that of"):
        references.open_rows(str(other), "train", None, loaded)
    with pytest.raises(DataError, match="nothing to ask"):
        list(references.questions(0, np.arange(3), np.ones(3, dtype=np.uint8), "shards"))


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"sacrebleu|rouge_score") as error:
        scores.Scorer()
    assert str(error.value).endswith("install it with \"pip install 'sft-shards[chat]'\"")


def test_the_command_starts_without_torch() -> None:
    script = "import sys, sft_shards.trainer.chat.cli; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
