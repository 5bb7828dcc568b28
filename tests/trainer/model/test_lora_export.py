"""What was trained comes out: a PEFT folder and a merged model that give Megatron's logits, and say where they end.

The logits are those of the trained adapters in Megatron, written down by a hook in a run that loads the checkpoint; the
other side is transformers and PEFT, which load the exported folders.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hf_runs import caught
from lora_jobs import DISTOPT, PP2, SP2, Runs
from preprocess_jobs import TOKENIZER, call
from toy_runs import Run, run_forked, sft_train

pytestmark = pytest.mark.megatron
CASES: dict[str, tuple[int, tuple[str, ...]]] = {"llama": (2, SP2), "qwen2": (2, PP2), "moe": (1, ())}


def test_the_exported_folders_give_the_logits_that_were_trained(tmp_path: Path) -> None:
    import peft
    import torch
    import transformers

    runs = Runs(tmp_path)
    for model, (nproc, flags) in CASES.items():
        saved = tmp_path / f"{model}-out"
        config = {"config": {"moe-aux-loss-coeff": 0.0}} if model == "moe" else {}
        runs.add(f"{model} trained", "padded", nproc, (*flags, f"--save={saved}"), model=model, **config)
        probe = (*flags, f"--load={saved}", "--finetune", "--train-iters=1", "--global-batch-size=1", "--lr=0")
        runs.add(model, "padded", nproc, (*probe, "--min-lr=0"), model=model, capture=tmp_path / f"{model}-seen")
    _, outputs = runs.made()
    for model in CASES:
        saved, adapter, merged = (tmp_path / f"{model}-{end}" for end in ("out", "adapter", "merged"))
        assert sft_train("export", saved, "--output", adapter).returncode == 0
        done = sft_train("export", saved, "--output", merged, "--merge")
        assert done.returncode == 0, done.stderr
        ((tokens, positions, logits),) = caught(tmp_path / f"{model}-seen")
        load = transformers.AutoModelForCausalLM.from_pretrained
        base = load(tmp_path / model, dtype=torch.float32)
        with torch.no_grad():
            before = base(tokens).logits.flatten(0, 1)[positions]
            found = {"merged": load(merged, dtype=torch.float32)(tokens).logits.flatten(0, 1)[positions]}
            adapted = peft.PeftModel.from_pretrained(base, adapter)
            found["adapter"] = adapted(tokens).logits.flatten(0, 1)[positions]
        ours = logits[..., : before.shape[-1]]
        assert float((before - ours).abs().max()) > 0.3, f"{model}: trained far enough to tell"
        for kind, theirs in found.items():
            assert float((theirs - ours).abs().max()) < 1e-5, f"{model}, {kind}"
        assert "the model's own are frozen" in outputs[model]
    check_refusals(tmp_path)


def check_refusals(folder: Path) -> None:
    """Wrong calls of the export, and the base that has moved."""
    saved, target = folder / "llama-out", folder / "new"
    moved = folder / "elsewhere"
    (folder / "llama").rename(moved)
    refused(2, "say where it is, by --model DIR", "export", saved, "--output", target, "--merge")
    assert sft_train("export", saved, "--output", target, "--merge", "--model", moved).returncode == 0
    assert (target / "config.json").is_file()
    refused(2, "is there already", "export", saved, "--output", target)
    refused(2, "is there already", "export", saved, "--output", moved, "--merge", "--model", moved)
    call = ["--shards", folder / "shards", "--model", moved, "--device", "cpu", "--nproc", 2, "--dry-run"]
    flags = ["--", "--seq-length=64", "--train-iters=9", "--lr=1", *SP2, f"--load={saved}"]
    refused(2, "its adapters have rank 4, this call says 5", *call, "--lora-rank", 5, "--lora-alpha", 8, *flags)
    refused(2, "holds adapters, no whole model", *call, *flags)
    refused(2, "holds checkpoints of adapters (rank 4", *call, *flags[:-1], f"--save={saved}")
    refused(2, "TP 4 would cut through", *call[:-1], "--nproc", 4, "--lora-rank", 4, "--dry-run", "--",
            "--seq-length=64", "--train-iters=9", "--lr=1", "--tensor-model-parallel-size=4")  # fmt: skip
    other = json.loads((saved / "hf/sft.json").read_text())
    other["adapter"]["rank"] = 5
    (saved / "hf/sft.json").write_text(json.dumps(other))
    refused(1, "export an earlier step", "export", saved, "--output", folder / "third")
    assert not (folder / "third").exists()


def refused(code: int, words: str, *arguments: object) -> None:
    done = sft_train(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, "one line, no traceback"


def write_base(folder: Path) -> Path:
    """A small model of random weights, large enough in its output layer for adapters to reach any answer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.1,
        bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )  # fmt: skip
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_toy_answers_and_stops_by_itself(tmp_path: Path) -> None:
    """bf16, TP 2 x DP 2: the exported adapter and the merged model answer every conversation; the base none."""
    base = write_base(tmp_path / "base")
    asked = ["red", "green", "blue", "seven", "water", "night", "paper", "music"]
    answers = ["a colour", "like grass", "the sky", "a number", "it is wet", "no sun", "write on it", "listen to it"]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]})
        for a, b in zip(asked, answers, strict=True)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    call("run", tmp_path / "in.jsonl", "--tokenizer", TOKENIZER, "--output", tmp_path / "shards")
    flags = ["--seq-length=64", "--train-iters=60", "--lr=1e-2", "--min-lr=1e-3", "--lr-decay-style=cosine", "--bf16"]
    flags += ["--global-batch-size=8", "--micro-batch-size=4", "--weight-decay=0", "--log-interval=10"]
    flags += ["--tensor-model-parallel-size=2", *SP2[1:], *DISTOPT, f"--save={tmp_path / 'out'}"]
    options = {"model": str(base), "batching": "padded", "lora_rank": 8}
    run_forked(tmp_path, [Run(shards=[tmp_path / "shards"], flags=flags, nproc=4, options=options)])
    for name, words in (("adapter", ()), ("merged", ("--merge",))):
        done = sft_train("export", tmp_path / "out", "--output", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "out")
    for folder, expected in ((tmp_path / "merged", answers), (tmp_path / "adapter", answers), (base, [])):
        lines = chat(folder, tmp_path / "shards")
        right = [line["text"] for line in lines if line["exact"] and line["stop"]]
        assert right == expected, folder.name


def chat(folder: Path, shards: Path) -> list[dict[str, Any]]:
    """Answers to all rows, in a process that cannot import Megatron."""
    (shards.parent / "megatron.py").write_text("raise ImportError('no Megatron here')")
    path = os.pathsep.join([str(shards.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    words = ("chat", folder, "--shards", shards, "--rows", "0-7", "--max-tokens", 16, "--device", "cpu", "--json")
    done = sft_train(*words, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
