"""Every benchmark starts and prints its table, at a size that measures nothing: what is not started rots."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from preprocess_jobs import DATA, TOKENIZER
from toy_runs import random_pairs, write_shards

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"
    "{{ message.content + '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}"
)
"""The template of the tokenizer that ships, its answers marked for Hugging Face's mask."""


def run(*words: object, cwd: Path = ROOT) -> str:
    """Standard output of a benchmark, which must succeed."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def throughput(tmp_path: Path) -> list[object]:
    """The arguments that every mode gets: the corpus that ships, its first kilobytes."""
    marked = tmp_path / "marked.jinja"
    marked.write_text(MARKED)
    return [DATA / "openai_tr.jsonl", TOKENIZER, "--marked", marked, "--megabytes", "0.03", "--rounds", "1"]


def test_contenders_agree_with_the_reference(throughput: list[object], tmp_path: Path) -> None:
    names = ("ours", "ours-task", "ours-hf", "backend-fastokens", "backend-hf", "megatron")
    only = [word for name in names for word in ("--only", name)]
    out = run("-m", "benchmarks.throughput", *throughput, *only, "--json", tmp_path / "found.json")
    rows = {row.split(" | ")[0].strip("| "): row for row in out.splitlines() if row.startswith("| ")}
    for title in ("sft-preprocess run", "sft-preprocess task, without plan and finalize"):
        assert rows[title].rstrip(" |").endswith("| ids equal, masks equal"), out
    for backend in ("Hugging Face tokenizers", "fastokens"):
        assert "ids equal, no mask" in rows[f"the bare backend of {backend}, texts in memory"], out
    assert "needs --checkout NAME=PATH" in rows["Megatron-LM tools/preprocess_data.py, rendered text, no mask"]
    assert json.loads((tmp_path / "found.json").read_text())["mode"] == "contenders"


def test_a_checkout_against_another_started_as_a_folder(throughput: list[object], tmp_path: Path) -> None:
    out = run(ROOT / "benchmarks" / "throughput", *throughput, "--against", ROOT, cwd=tmp_path)
    assert re.search(r"^\| ratio, here / there \|  \| \d+\.\d\d \|", out, re.MULTILINE), out
    assert "tokens and masks: the same bytes" in out


@pytest.mark.parametrize(
    ("mode", "row"), [("stages", r"\| outside of the tasks"), ("scaling", r"\| 2 \|"), ("formats", r"\| parquet \|")]
)
def test_modes(throughput: list[object], tmp_path: Path, mode: str, row: str) -> None:
    if mode == "formats":  # wants single questions
        throughput = [DATA / "alpaca_en.json", *throughput[1:]]
    out = run("-m", "benchmarks.throughput", *throughput, "--mode", mode)
    assert re.search(f"^{row}", out, re.MULTILINE), out


@pytest.mark.parametrize("kind", ["text-only", "tool turns"])
def test_templates(throughput: list[object], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "bare.jinja").write_text(MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", ""))
    out = run("-m", "benchmarks.throughput", *throughput, "--mode", "templates", "--templates", folder, "--kind", kind)
    assert re.search(r"^\| bare \| .* \| all \d+ equal \|$", out, re.MULTILINE), out


def test_peers(tmp_path: Path) -> None:
    for name in ("qwen2.5-151k-chatml", "llama3-128k", "llama2-32k-spm"):
        shutil.copytree(TOKENIZER, tmp_path / name)
    out = run("-m", "benchmarks.peers", tmp_path, "--peer", "hf")
    assert "## one question and its answer (qwen2.5-151k-chatml)" in out
    assert "B  Hugging Face, return_assistant_tokens_mask: nothing carries loss" in out


def test_scaling_with_one_size(tmp_path: Path) -> None:
    call = ["--tokenizer", TOKENIZER, "--megabytes", "1", "--workers", "1"]
    out = run("benchmarks/scaling.py", DATA / "openai_tr.jsonl", *call)
    assert "| finalize |" in out
    assert "give --megabytes two" in out


def test_packing(tmp_path: Path) -> None:
    assert "sft-shards" in run("benchmarks/pack.py", "--counts", "1000", "--trl-at-most", "0")


def test_reading(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(40, seed=1)})
    assert "read / copy: " in run("benchmarks/reading.py", shards, "--seq-length", "128", "--samples", "4")


def test_balance(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(60, seed=1)})
    size = ["--positions", "64", "--ranks", "2", "--micro-batches", "4", "--stages", "2"]
    out = run("benchmarks/balance.py", shards, *size)
    assert re.search(r"^\| 64 \| 2 \| 4 \| \d+\.\d+% \| \d+\.\d+% \|$", out, re.MULTILINE), out
    times = dict(re.findall(r"4 micro-batches, (\w+): (\S+)", out))
    assert sorted(times) == ["falling", "random", "rising"]


def test_start_up_of_both_commands():
    out = run(
        "-m", "benchmarks.startup_preprocess", DATA / "tokenizer", "--rounds", "1", "--records", "50", "--against", ROOT
    )
    rows = {line[:55].strip(): line[55:] for line in out.splitlines() if line.startswith(("AutoTokenizer", "sft-"))}
    assert len(re.findall(r"\d+\.\d+", rows.pop("AutoTokenizer.from_pretrained"))) == 2
    assert len(rows) == 13
    assert all(len(re.findall(r"\d+\.\d+", row)) == 5 for row in rows.values())


def test_startup(tmp_path: Path) -> None:
    size = ["--conversations", "300", "--shards", "2", "--seq-length", "512", "--samples", "3"]
    assert "padded, again: first sample after" in run("benchmarks/startup.py", *size)


def test_every_way_of_doing_a_step_gives_the_same_loss() -> None:
    out = run("benchmarks/step.py", "--shape", "tiny", "--seq-length", "128", "--micro-batches", "1", "--steps", "1")
    apart = re.search(r"losses within (\S+)", out)
    assert apart is not None
    assert float(apart[1]) < 1e-5
    found = [row.strip("| ").split(" | ") for row in out.splitlines() if row.startswith("| ")][1:]
    peer = "Megatron-LM's SFT data set"
    assert [each[0] for each in found] == ["mask of all positions", *["sdpa"] * 4, peer, peer]
    assert found[-2][2:4] == ["packed", "needs Transformer Engine: Megatron's own attention takes no packed rows"]
    assert all(float(each[5]) > 0 for each in found if each != found[-2])
    assert "trained tokens fit" not in out, "all rows train the same ones"
