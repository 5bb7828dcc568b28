"""From a model folder to a model folder that answers: trained by Megatron, exported, loaded by transformers alone.

Also what happens between: resuming reads nothing from the folder, and whatever is wrong is one line.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import preprocess_jobs
import pytest
from toy_runs import Run, losses, random_pairs, run_forked, run_script, tokenizer_folder, write_shards

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.model import sidecar
from sft_shards.trainer.model.export import export

pytestmark = pytest.mark.megatron

QUESTIONS = [
    ("What is the capital of France?", "Paris, on the Seine."),
    ("What is two and two?", "Four."),
    ("Name a colour.", "Green is one of them."),
    ("Who wrote Faust?", "Goethe did."),
    ("How many legs has a spider?", "Eight legs, and often as many eyes."),
    ("Say something short.", "No."),
    ("Which month comes after May?", "June comes next."),
    ("What do bees make?", "Honey and wax."),
]
TP2, PP2 = "--tensor-model-parallel-size=2", "--pipeline-model-parallel-size=2"


def base_model(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(preprocess_jobs.TOKENIZER)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 3, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.1,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=len(tokenizer),
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, shards of eight conversations, and two trainings of all weights on two processes."""
    root = tmp_path_factory.mktemp("road")
    base_model(root / "base")
    turns = ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in QUESTIONS)
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, turns)))
    preprocess_jobs.call("run", root / "data.jsonl", "--output", root / "shards", "--tokenizer", root / "base")
    (root / "questions.json").write_text(json.dumps(QUESTIONS))
    common = ["--seq-length=64", "--global-batch-size=8", "--lr=5e-3", "--min-lr=5e-4", "--train-iters=80"]
    common += ["--clip-grad=1.0", "--weight-decay=0", "--log-interval=20", "--eval-iters=0", "--save-interval=100"]
    kinds = {"wide": [TP2], "narrow": ["--bf16", "--use-distributed-optimizer"]}
    run_forked(
        root,
        [
            Run(
                shards=[root / "shards"],
                flags=[*common, *flags, f"--save={root / name}", f"--load={root / name}"],
                nproc=2,
                options={"model": str(root / "base"), "batching": "padded"},
            )
            for name, flags in kinds.items()
        ],
    )
    for name in kinds:
        export(root / name, root / f"{name}-hf")
    return root


@pytest.fixture(scope="module")
def answers(road: Path) -> dict[str, list[list[Any]]]:
    folders = {
        "base": (road / "base", road / "base"),
        "wide": (road / "wide-hf", road / "wide-hf"),
        "narrow": (road / "narrow-hf", road / "narrow-hf"),
    }
    words = [word for pair in folders.values() for word in pair]
    done = run_script("generate_answers.py", road / "questions.json", *words)
    return dict(zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_it_answers_every_question_and_stops_by_itself(answers: dict[str, list[list[Any]]], name: str) -> None:
    assert answers[name] == [[answer, True] for _, answer in QUESTIONS]


def test_the_base_answers_none(answers: dict[str, list[list[Any]]]) -> None:
    assert not [text for (text, _), (_, answer) in zip(answers["base"], QUESTIONS, strict=True) if text == answer]


def test_what_the_exported_folder_carries(road: Path) -> None:
    made = road / "narrow-hf"
    config = json.loads((made / "config.json").read_text())
    base = json.loads((road / "base/config.json").read_text())
    assert {key: value for key, value in config.items() if key != "dtype"} == {
        key: value for key, value in base.items() if key != "dtype"
    }
    assert config["dtype"] == "bfloat16"
    generation = json.loads((made / "generation_config.json").read_text())
    manifest = ShardDirectory(road / "shards").manifest
    stops = sidecar.stop_ids(road / "base", manifest.template.stop)
    assert stops
    assert generation["eos_token_id"] == [*stops, base["eos_token_id"]], "the template's first, then what the model had"
    assert (made / "chat_template.jinja").read_text() == manifest.template.source
    for name in ("tokenizer.json",):
        assert (made / name).read_bytes() == (road / "shards/tokenizer" / name).read_bytes()
    kept = sidecar.read(road / "narrow/hf")
    assert (kept.base, kept.architecture, kept.adapter) == (str(road / "base"), "Qwen2ForCausalLM", None)


def test_resuming_reads_nothing_and_an_unfit_learning_rate_is_one_line(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(24, seed=1)})
    base = tmp_path / "base"
    base_model_of_toys(base)
    common = ["--seq-length=48", "--global-batch-size=4", "--log-interval=1", "--eval-iters=0", "--train-iters=6"]
    common += ["--lr-decay-style=constant", "--lr-warmup-fraction=0", "--save-interval=3"]
    options = {"model": str(base)}

    def run(name: str, *flags: str, nproc: int = 1, code: int = 0) -> Run:
        words = [*common, f"--save={tmp_path / name}", f"--load={tmp_path / name}", *flags]
        return Run(shards=[shards], flags=words, nproc=nproc, code=code, options=options)

    distributed = "--use-distributed-optimizer"
    first = [
        run("straight", "--lr=1e-2"),
        run("stopped", "--lr=1e-2", "--exit-interval=3"),
        run("narrow", "--lr=1e-2", "--bf16", distributed, "--exit-interval=3", nproc=2),
    ]
    straight, stopped, narrow = run_forked(tmp_path, first)
    for text in (straight, stopped, narrow):
        assert f"weights: {base} (" in text
    assert "rounded to BF16" in narrow
    for file in base.glob("*.safetensors"):
        file.unlink()  # a resumed run needs the shape alone
    other = "--override-opt-param-scheduler"
    again = [
        run("stopped", "--lr=1e-2"),
        run("narrow", "--lr=1e-2", "--bf16", distributed, nproc=2),
        run("stopped", "--lr=1e-3", other, "--train-iters=8", code=2),
        run("narrow", "--lr=1e-3", "--bf16", distributed, other, "--train-iters=8", nproc=2, code=2),
        run("nowhere", "--lr=1e-2", code=2),
    ]
    resumed, both, rate, rates, gone = run_forked(tmp_path, again)
    assert f"weights: checkpoint in {tmp_path / 'stopped'} (resumed)" in resumed
    assert losses(resumed)[4] == losses(straight)[4]
    assert losses(resumed)[6] == losses(straight)[6]
    assert sorted(losses(both)) == [4, 5, 6]
    for text, name in ((rate, "stopped"), (rates, "narrow")):
        line = next(line for line in text.splitlines() if line.startswith("sft-train: --load"))
        assert f"--load {tmp_path / name}: its optimizer was saved with another --lr" in line
    assert "no such folder" in gone or "neither model.safetensors nor" in gone


def base_model_of_toys(folder: Path) -> None:
    """A model for the vocabulary of `toy_runs`."""
    import torch
    from toy_runs import VOCABULARY
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def test_calls_that_are_wrong_are_one_line_each_before_anything_starts(tmp_path: Path) -> None:
    """With --dry-run, which checks what a start checks."""
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(12, seed=1)})
    good = tmp_path / "good"
    base_model_of_toys(good)
    for name in ("short", "biased", "shape", "words", "kind", "quantised"):
        shutil.copytree(good, tmp_path / name)
    file = tmp_path / "short/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    add(tmp_path / "biased", "model.layers.0.self_attn.q_proj.bias", (32,))
    add(tmp_path / "quantised", "model.layers.0.mlp.up_proj.weight_scale_inv", (1, 1))
    change(tmp_path / "shape", num_hidden_layers=3)
    change(tmp_path / "kind", architectures=["GPT2LMHeadModel"])
    tokenizer_folder(tmp_path / "words", {f"w{number}": number for number in range(120)})
    flags = ["--seq-length=32", "--lr=1e-3"]
    head = ["--shards", shards, "--epochs", 1, "--device", "cpu"]
    wrong: list[tuple[list[object], int, str]] = [
        ([*head, "--", *flags, "--num-layers=2", "--hidden-size=32", "--num-attention-heads=4"], 2, "nothing says where"),
        ([*head, "--hf-config", good, "--", *flags], 2, "nothing says where the weights come from"),
        ([*head, "--hf-config", good, "--", *flags, f"--load={tmp_path}/no"], 2, f"--load {tmp_path}/no: no checkpoint"),
        ([*head, "--hf-config", good, "--", *flags, f"--pretrained-checkpoint={tmp_path}/no"], 2, "no: no checkpoint there"),
        ([*head, "--model", tmp_path / "none", "--", *flags], 2, f"--model {tmp_path}/none: no such folder"),
        ([*head, "--model", tmp_path / "short", "--", *flags], 1, "not a whole safetensors file"),
        ([*head, "--model", tmp_path / "biased", "--", *flags], 1, "q_proj.bias is a tensor that config.json does not"),
        ([*head, "--model", tmp_path / "quantised", "--", *flags], 1, "weight_scale_inv belongs to quantised weights"),
        ([*head, "--model", tmp_path / "shape", "--", *flags], 1, "missing, which config.json tells of"),
        ([*head, "--model", tmp_path / "kind", "--", *flags], 2, "GPT2LMHeadModel is not one of"),
        ([*head, "--model", tmp_path / "words", "--", *flags], 1, "tokenize the data again with"),
        ([*head, "--model", good, "--random-weights", "--", *flags], 2, "both say the start"),
        ([*head, "--model", good, "--hf-config", good, "--", *flags], 2, "--hf-config and --model both say"),
        ([*head, "--model", good, "--", *flags, f"--pretrained-checkpoint={tmp_path}"], 2, "both say the start"),
        ([*head, "--model", good, "--", *flags, "--use-checkpoint-args"], 2, "--model and --use-checkpoint-args both"),
        ([*head, "--model", good, "--", *flags, "--no-initialization"], 2, "--no-initialization does not go with"),
        ([*head, "--model", good, "--", *flags, "--num-layers=3"], 2, "--num-layers 3 contradicts"),
    ]  # fmt: skip
    right: list[object] = [*head, "--model", good, "--", *flags, f"--save={tmp_path}/out", f"--load={tmp_path}/out"]
    calls = [right, *(call for call, _, _ in wrong)]
    every = [{"words": ["--dry-run", *map(str, words)], "variables": {}} for words in calls]
    (tmp_path / "calls.json").write_text(json.dumps(every))
    answers = json.loads(run_script("forked_calls.py", tmp_path / "calls.json").stdout.splitlines()[-1])
    assert answers[0][0] == 0, answers[0]
    assert f"# weights: {good} (21 tensors" in answers[0][1]
    assert not (tmp_path / "out").exists()
    for (call, code, words), (status, out, said) in zip(wrong, answers[1:], strict=True):
        assert (status, out) == (code, ""), (call, said)
        assert words in said, (call, said)
        assert said.count("\n") == 1, said


def add(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({**load_file(file), name: torch.zeros(shape)}, file)


def change(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
