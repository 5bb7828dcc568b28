"""What a start would do, on a machine without a GPU: the same errors, and a script that does it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from toy_runs import TOY_MODEL, losses, random_pairs, random_start, run_script, sft_train, write_shards

pytestmark = pytest.mark.megatron

MODEL = [*TOY_MODEL, "--seq-length=32", "--lr=1e-2"]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(20, seed=1)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Models and a configuration."""
    path = tmp_path_factory.mktemp("run")
    models = {"model": {}, "gpt": {"architectures": ["GPT2LMHeadModel"]}, "small": {"vocab_size": 100}}
    for name, change in models.items():
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps({**LLAMA, **change}))
    flags = "hf-config: model\nrandom-weights: true\nseq-length: 32\nlr: 0.01\nlog-interval: 7\n"
    (path / "run.yaml").write_text(f"shards: {shards}\n{flags}")
    return path


Call = tuple[list[object], dict[str, str]]
PARALLEL = ["--tensor-model-parallel-size=2", "--pipeline-model-parallel-size=2", "--bf16"]
BY_HAND = ["--nnodes", 2, "--node-rank", 1, "--master-addr", "localhost", "--master-port", 4000]


def right(shards: Path, folder: Path) -> dict[str, Call]:
    own = ["--config", folder / "run.yaml", "--epochs", 2]
    theirs = {"GPU_MAX_HW_QUEUES": "4", "NVTE_FUSED_ATTN": "1"}
    save = [f"--save={folder}/a b", "--deterministic-mode"]
    cpu = ["--shards", shards, "--device=cpu"]
    usual = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "4001"}
    three = ["--", *MODEL, "--train-iters=3"]
    return {
        "alone": ([*own, "--", *PARALLEL], theirs),
        "nodes": ([*own, *BY_HAND, "--nproc", 4, "--", *PARALLEL, *save], theirs),
        "cpu": ([*cpu, "--nproc=2", *three], {}),
        "variables": ([*cpu, *three], usual),
        "one of one": ([*cpu, "--nnodes=1", "--node-rank=0", *three], usual),
    }


def wrong(shards: Path, folder: Path) -> list[tuple[list[object], int, str]]:
    """Calls, exit status, and what is said."""
    train = ["--shards", shards, "--epochs=1"]
    two = ["--nnodes=2", "--node-rank=0", "--master-addr=localhost"]
    cpu, spread = [*train, "--device=cpu"], ["--context-parallel-size=2", *PARALLEL[:1], "--sequence-parallel"]
    return [
        ([*train, "--", *MODEL, "--tensor-model-parallel-size=16"], 2, "8 process(es) are too few for TP 16 x PP 1"),
        ([*train, "--nproc=4", *two, "--", *MODEL, "--tensor-model-parallel-size=4", "--pipeline-model-parallel-size=4"],
         2, "8 process(es) are too few for TP 4 x PP 4: --nproc x nodes must be a multiple of 16"),
        ([*train, "--nproc=2", "--", *MODEL, "--num-experts=8", "--expert-model-parallel-size=8"], 2, "EP x expert TP 8"),
        ([*train, "--nproc=4", "--", *MODEL, "--context-parallel-size=3", "--seq-length=36"], 2,
         "4 process(es) do not divide into TP 1 x PP 1 x CP 3"),
        ([*cpu, "--nproc=3", "--", *MODEL, "--context-parallel-size=3", "--seq-length=36"], 2,
         "4 attention heads do not divide by TP 1 x CP 3"),
        ([*train, "--nproc=4", "--", *MODEL, *spread, "--seq-length=36"], 2,
         "--seq-length 36 is not a multiple of 8 = 2 x CP 2 x TP 2 (--sequence-parallel); make it 40"),
        ([*train, "--", *MODEL, "--pipeline-model-parallel-size=2", "--micro-batch-size=2"], 2,
         "--micro-batch-size 2: pipeline stages exchange one packed row"),
        ([*train, "--isolation=te", "--", *MODEL], 1, "--isolation te: Transformer Engine is not installed; leave it out"),
        ([*cpu, "--isolation=flash", "--", *MODEL], 2, "--isolation flash: --device cpu has no such kernel; leave it out"),
        ([*cpu, "--", *MODEL, "--window-size=7,0"], 2, "has no sliding window (--window-size)"),
        ([*train, "--", *MODEL, "--num-attention-heads=5"], 2, "Megatron refuses the flags"),
        ([*train, "--", *MODEL, "--num-layer=2"], 2, "did you mean '--num-layers'?"),
        ([*train, "--", *MODEL, "--exit-signal=SIGINT"], 2, "--exit-signal: sft-train passes every signal on"),
        ([*train, "--hf-config", folder / "gpt", "--", "--lr=1"], 2, "architecture GPT2LMHeadModel is not one of"),
        ([*train, "--hf-config", folder / "small", "--", "--lr=1"], 1, "has 100 rows"),
        ([*train, "--nnodes=2", "--node-rank=0", "--", *MODEL], 2, "--master-addr is missing"),
        ([*train, *two, "--node-rank=2", "--", *MODEL], 2, "--node-rank 2: with --nnodes 2 it is 0 to 1"),
        (["--shards", folder / "none", "--", *MODEL], 1, "no such shard directory"),
        ([*train, "--nodes=2", "--", *MODEL], 2, "--nodes is for --slurm"),
        ([*train, "--slurm", "--container-runtime=docker", "--", *MODEL], 2, "--container-runtime is for --container"),
        ([*train, "--slurm", *two, "--", *MODEL], 2, "--nnodes is set by the batch script"),
        ([*train, "--slurm", "--slurm-option==x", "--", *MODEL], 2, "--slurm-option =x: must have the form"),
        ([*train, "--slurm", "--container=no.sif", "--container-runtime=apptainer", "--", *MODEL], 2, "no such image"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found(shards: Path, folder: Path) -> tuple[dict[str, str], list[tuple[int, str, str]]]:
    """The scripts of the right calls, and the answers to the wrong ones; all in forks of one process."""
    good, bad = right(shards, folder), wrong(shards, folder)
    calls = [*good.values(), *((words, {}) for words, _, _ in bad)]
    every = [{"words": ["--dry-run", *random_start(words)], "variables": variables} for words, variables in calls]
    (folder / "calls.json").write_text(json.dumps(every))
    answers = json.loads(run_script("forked_calls.py", folder / "calls.json").stdout.splitlines()[-1])
    for name, (code, _, said) in zip(good, answers, strict=False):
        assert (code, said) == (0, ""), name
    return {name: answer[1] for name, answer in zip(good, answers, strict=False)}, answers[len(good) :]


Found = tuple[dict[str, str], list[tuple[int, str, str]]]


def test_what_a_gpu_node_would_run(found: Found, folder: Path) -> None:
    alone, nodes = found[0]["alone"], found[0]["nodes"]
    for script in (alone, nodes):
        lines = script.splitlines()
        assert any(line.startswith("export HSA_NO_SCRATCH_RECLAIM=1  # ") for line in lines)
        assert any(line.startswith("# GPU_MAX_HW_QUEUES=4  (yours, kept; else 2: ") for line in lines)
        assert any(line.startswith("unset NVTE_FUSED_ATTN  # ") for line in lines)
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        # From the model's config.json, the file, the call, the shards and our defaults.
        for flag in ("--num-query-groups=2", "--log-interval=7", "--bf16", "--vocab-size=120", "--micro-batch-size=1"):
            assert f"#   {flag}" in lines
    assert "# no GPU was looked at: 8 AMD GPUs on each node are assumed (--nproc N for another number)" in alone
    assert "8 process(es), TP 2 x PP 2 x DP 2" in alone
    assert "NCCL_ALGO" not in alone
    assert "--exit-signal-handler" not in alone
    words = torchrun(alone)
    assert words[1:-1] == ["--standalone", "--nproc-per-node=8", "-m", "sft_shards.trainer.worker"]
    assert "#   --attention-backend" not in alone, "there is no Transformer Engine here"
    assert json.loads(words[-1])["attention"] == "fused"
    assert "8 process(es), TP 2 x PP 2 x DP 2" in nodes
    assert "export NCCL_ALGO=Ring" in nodes
    assert f"#   '--save={folder}/a b'\n" in nodes
    assert "#   --exit-signal-handler\n" in nodes, "told to stop, it saves"
    where = ["--nnodes=2", "--node-rank=1", "--master-addr=localhost", "--master-port=4000", "--nproc-per-node=4"]
    assert torchrun(nodes)[1:6] == where


def torchrun(script: str) -> list[str]:
    (line,) = (line for line in script.splitlines() if "torchrun " in line and not line.startswith("#"))
    return shlex.split(line)


def test_what_is_shown_can_be_pasted_and_trains(found: Found) -> None:
    script = found[0]["cpu"]
    assert "CPU (standing in for a GPU): 2 process(es)" in script
    assert "HSA_" not in script
    pasted = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True, check=True)
    assert list(losses(pasted.stdout)) == [1, 2, 3]


def test_calls_that_are_wrong(found: Found, shards: Path, folder: Path) -> None:
    """Each as a real start would say it, in one line, with nothing printed and no GPU at hand."""
    for (call, code, words), answer in zip(wrong(shards, folder), found[1], strict=True):
        assert answer[:2] == [code, ""], (call, answer)
        assert words in answer[2], call
        assert answer[2].startswith("sft-train: ")
        assert answer[2].count("\n") == 1, answer[2]


def split_imports(text: str) -> tuple[list[str], set[str]]:
    """The lines of standard error that are not Python's on its imports, and the modules that those name."""
    lines = text.splitlines()
    imports = [line for line in lines if line.startswith("import time:")]
    return [line for line in lines if line not in imports], {line.rpartition("|")[2].strip() for line in imports}


def test_what_was_checked_once_needs_no_torch(shards: Path, tmp_path: Path) -> None:
    """A dry run again, and wrong calls, also of many workers: the second time torch is one that cannot be imported."""
    path = tmp_path / "path"
    path.mkdir()
    variables = {"SFT_SHARDS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(path), "PYTHONPROFILEIMPORTTIME": "1"}
    right = ["--shards", shards, "--device=cpu", "--dry-run", "--", *MODEL, "--train-iters=3"]
    first = sft_train(*right, **variables)
    messages, modules = split_imports(first.stderr)
    assert (first.returncode, messages) == (0, [])
    assert {"torch", "megatron.training.arguments", "megatron.core.jit"} < modules
    assert not {"torch._dynamo", "transformers.utils.logging"} & modules, (
        "a second each, and no flag is checked by them"
    )
    (path / "torch").mkdir()
    (path / "torch" / "__init__.py").write_text("raise SystemExit('imported')\n")
    again = sft_train(*right, **variables)
    assert (again.returncode, again.stdout, split_imports(again.stderr)[0]) == (0, first.stdout, [])
    many = ["--shards", shards, "--device=cpu", "--nproc=64", "--", *MODEL, "--train-iters=3"]
    for flag, said in (
        ("--num-layer=2", "unknown Megatron flag --num-layer; did you mean '--num-layers'?"),
        ("--lr=fast", "argument --lr: invalid float value: 'fast'"),
        ("--tensor-model-parallel-size=3", "64 process(es) do not divide into TP 3 x PP 1"),
    ):
        done = sft_train(*many, flag, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    other = sft_train(*right, "--lr=2e-2", **variables)
    assert "imported" in other.stderr, "Megatron has not seen these flags"


def test_nodes_from_the_usual_variables(found: Found) -> None:
    where = ["--nnodes=2", "--node-rank=1", "--master-addr=localhost", "--master-port=4001"]
    assert torchrun(found[0]["variables"])[1:5] == where
    assert "GLOO_SOCKET_IFNAME" not in found[0]["variables"]
    assert torchrun(found[0]["one of one"])[1] == "--standalone"
