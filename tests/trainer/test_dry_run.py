"""What a start would do, on a machine without a GPU: the same errors, and a script that does it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from toy import TOY_MODEL, losses, random_pairs, run_script, sft_train, write_shards

MODEL = [*TOY_MODEL, "--seq-length=32", "--lr=1e-2"]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip
Answer = tuple[int, str, str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(20, seed=1)})


def calls(folder: Path, *words: list[object], **variables: str) -> list[Answer]:
    """Status, output and errors of each call with --dry-run."""
    path = folder / "calls.json"
    path.write_text(json.dumps([{"words": ["--dry-run", *map(str, each)], "variables": variables} for each in words]))
    return [tuple(each) for each in json.loads(run_script("calls.py", path).stdout.splitlines()[-1])]


def test_what_a_gpu_node_would_run(shards: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "run.yaml").write_text(
        f"shards: {shards}\nhf-config: model\nseq-length: 32\nlr: 0.01\nlog-interval: 7\n"
    )
    own = ["--config", tmp_path / "run.yaml", "--epochs", 2]
    many = ["--nnodes", 2, "--node-rank", 1, "--master-addr", "localhost", "--master-port", 4000, "--nproc", 4]
    parallel = ["--tensor-model-parallel-size=2", "--pipeline-model-parallel-size=2", "--bf16"]
    save = [f"--save={tmp_path}/a b", "--deterministic-mode"]
    alone, nodes = calls(
        tmp_path, [*own, "--", *parallel], [*own, *many, "--", *parallel, *save],
        GPU_MAX_HW_QUEUES="4", NVTE_FUSED_ATTN="1",
    )  # fmt: skip
    for code, out, err in (alone, nodes):
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert any(line.startswith("export HSA_NO_SCRATCH_RECLAIM=1  # ") for line in lines)
        assert any(line.startswith("# GPU_MAX_HW_QUEUES=4  (yours, kept; else 2: ") for line in lines)
        assert any(line.startswith("unset NVTE_FUSED_ATTN  # ") for line in lines)
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)
        # From the model's config.json, the file, the call, the shards and our defaults.
        for flag in ("--num-query-groups=2", "--log-interval=7", "--bf16", "--vocab-size=120", "--micro-batch-size=1"):
            assert f"#   {flag}" in lines
    assert "# no GPU is visible here: 8 of AMD's on each node are assumed (--nproc N for others)" in alone[1]
    assert "8 process(es), TP 2 x PP 2 x DP 2" in alone[1]
    assert "NCCL_ALGO" not in alone[1]
    assert "--exit-signal-handler" not in alone[1]
    words = torchrun(alone[1])
    assert words[1:-1] == ["--standalone", "--nproc-per-node=8", "-m", "trainer.worker"]
    assert "#   --attention-backend" not in alone[1], "there is no Transformer Engine here"
    assert json.loads(words[-1])["attention"] == "fused"
    assert "DP 2" in nodes[1]
    assert "export NCCL_ALGO=Ring" in nodes[1]
    assert f"#   '--save={tmp_path}/a b'\n" in nodes[1]
    assert "#   --exit-signal-handler\n" in nodes[1], "told to stop, it saves"
    where = ["--nnodes=2", "--node-rank=1", "--master-addr=localhost", "--master-port=4000", "--nproc-per-node=4"]
    assert torchrun(nodes[1])[1:6] == where


def torchrun(script: str) -> list[str]:
    (line,) = (line for line in script.splitlines() if "torchrun " in line and not line.startswith("#"))
    return shlex.split(line)


def test_what_is_shown_can_be_pasted_and_trains(shards: Path) -> None:
    call = ["--shards", shards, "--device=cpu", "--nproc=2", "--", *MODEL, "--train-iters=3"]
    shown = sft_train("--dry-run", *call)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "CPU (standing in for a GPU): 2 process(es)" in shown.stdout
    assert "HSA_" not in shown.stdout
    pasted = subprocess.run(["bash", "-e"], input=shown.stdout, capture_output=True, text=True, check=True)
    assert len(losses(pasted.stdout)) == 3
    assert losses(pasted.stdout) == losses(sft_train(*call).stdout)


def test_calls_that_are_wrong(shards: Path, tmp_path: Path) -> None:
    """Each as a real start would say it, in one line, with nothing printed and no GPU at hand."""
    gpt = tmp_path / "gpt"
    gpt.mkdir()
    (gpt / "config.json").write_text(json.dumps({**LLAMA, "architectures": ["GPT2LMHeadModel"]}))
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 100}))
    train = ["--shards", shards, "--epochs=1"]
    two = ["--nnodes=2", "--node-rank=0", "--master-addr=localhost"]
    wrong: list[tuple[list[object], int, str]] = [
        ([*train, "--", *MODEL, "--tensor-model-parallel-size=16"], 2, "8 process(es) are too few for TP 16 x PP 1"),
        ([*train, "--nproc=4", *two, "--", *MODEL, "--tensor-model-parallel-size=4", "--pipeline-model-parallel-size=4"],
         2, "8 process(es) are too few for TP 4 x PP 4: --nproc x nodes must be a multiple of 16"),
        ([*train, "--nproc=2", "--", *MODEL, "--num-experts=8", "--expert-model-parallel-size=8"], 2, "EP x expert TP 8"),
        ([*train, "--", *MODEL, "--num-attention-heads=5"], 2, "Megatron refuses the flags"),
        ([*train, "--", *MODEL, "--num-layer=2"], 2, "did you mean '--num-layers'?"),
        ([*train, "--", *MODEL, "--exit-signal=SIGINT"], 2, "--exit-signal: workers are always told by SIGTERM"),
        ([*train, "--hf-config", gpt, "--", "--seq-length=32", "--lr=1"], 2, "architecture GPT2LMHeadModel is not one of"),
        ([*train, "--hf-config", small, "--", "--seq-length=32", "--lr=1"], 1, "has 100 rows"),
        ([*train, "--nnodes=2", "--node-rank=0", "--", *MODEL], 2, "--master-addr is missing"),
        ([*train, *two, "--node-rank=2", "--", *MODEL], 2, "--node-rank 2: with --nnodes 2 it is 0 to 1"),
        (["--shards", tmp_path / "none", "--", *MODEL], 1, "no such shard directory"),
        ([*train, "--nodes=2", "--", *MODEL], 2, "--nodes is for --slurm"),
        ([*train, "--slurm", "--container-runtime=docker", "--", *MODEL], 2, "--container-runtime is for --container"),
        ([*train, "--slurm", *two, "--", *MODEL], 2, "--nnodes is found out by the batch script"),
        ([*train, "--slurm", "--slurm-option==x", "--", *MODEL], 2, "--slurm-option =x: must have the form"),
        ([*train, "--slurm", "--container=no.sif", "--container-runtime=apptainer", "--", *MODEL], 2, "no such image"),
    ]  # fmt: skip
    for (call, code, words), found in zip(wrong, calls(tmp_path, *(call for call, _, _ in wrong)), strict=True):
        assert (found[0], found[1]) == (code, ""), (call, found)
        assert words in found[2], call
        assert found[2].startswith("sft-train: ")
        assert found[2].count("\n") == 1, found[2]


def test_nodes_from_the_usual_variables(shards: Path, tmp_path: Path) -> None:
    train = ["--shards", shards, "--epochs=1", "--device=cpu"]
    variables = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "4001"}
    found, alone = calls(
        tmp_path, [*train, "--", *MODEL], [*train, "--nnodes=1", "--node-rank=0", "--", *MODEL], **variables
    )
    assert torchrun(found[1])[1:5] == ["--nnodes=2", "--node-rank=1", "--master-addr=localhost", "--master-port=4001"]
    assert "GLOO_SOCKET_IFNAME" not in found[1]
    assert torchrun(alone[1])[1] == "--standalone"
