"""The command, as a user calls it: every refusal is one line, and says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from toy_runs import Run, random_pairs, run_forked, sft_train, write_shards

from sft_shards.trainer import cli

MODEL = ["--num-layers=2", "--hidden-size=32", "--num-attention-heads=4", "--seq-length=32", "--lr=1e-3"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(6, seed=1)})


def refused(code: int, words: str, *call: object) -> None:
    done = sft_train(*call)
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("sft-train: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"


@pytest.mark.process
def test_help_needs_no_torch() -> None:
    script = "import sys, sft_shards.trainer.cli; code = sft_shards.trainer.cli.status(['--help']); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--shards DIR[:WEIGHT]" in done.stdout
    assert done.stdout.endswith("0 False\n")


@pytest.mark.unit
@pytest.mark.parametrize(("word", "said"), [("-h", "--shards DIR[:WEIGHT]"), ("--version", "sft-shards ")])
def test_help_and_version(capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    assert cli.status([word]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.unit
@pytest.mark.parametrize("command", ["chat", "doctor", "export"])
def test_help_of_every_command(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.status([command, "-h"]) == 0
    assert "Show this message" in capsys.readouterr().out


@pytest.mark.process
def test_calls_that_are_wrong(shards: Path, tmp_path: Path) -> None:
    refused(2, "--shards is missing")
    refused(2, "Megatron's flags go after '--'", "--shards", shards, "--num-layers", 2)
    refused(2, "a weight is above 0", "--shards", f"{shards}:0")
    refused(2, "--epochs none", "--shards", shards, "--epochs", "none")
    refused(2, "no such stage; did you mean 'sft'?", "--shards", shards, "--stage", "sftt")
    refused(2, "'tpu' is not one of", "--shards", shards, "--device", "tpu")
    refused(2, "none.yaml: cannot read", "--config", tmp_path / "none.yaml")
    refused(2, "No such command 'dance'", "dance")
    refused(2, "No such command 'num-layers'", "--shards", shards, "num-layers", 2)
    refused(2, "Megatron's flags go after '--'", "--shards", shards, "num-layers=2")


@pytest.mark.process
def test_shards_that_are_not(shards: Path, tmp_path: Path) -> None:
    refused(1, "no such shard directory", "--shards", tmp_path / "nothing")
    refused(1, "no manifest.json", "--shards", tmp_path)
    other = write_shards(
        tmp_path / "other", {"train": random_pairs(3, seed=1)}, vocabulary={f"x{i}": i for i in range(120)}, name="x"
    )
    refused(1, "tokenized with x", "--shards", shards, "--shards", other)


@pytest.mark.process
def test_a_machine_without_a_gpu(shards: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.fail("this test is about machines without a GPU; hide the GPU from it (HIP_VISIBLE_DEVICES='')")
    refused(1, "--device cpu", "--shards", shards, "--", *MODEL, "--train-iters=1")


@pytest.mark.megatron
def test_what_only_a_worker_can_see(shards: Path, tmp_path: Path) -> None:
    """Through the workers that torchrun would start; that the launcher says their words, the tests below hold."""
    once = [*MODEL, "--train-iters=1"]
    in_file = {"config": {"hiden-size": 3}, "config_path": "run.yaml"}
    calls: list[tuple[int, str, list[str], dict[str, object]]] = [
        (2, "unknown Megatron flag --num-layer; did you mean '--num-layers'?", ["--num-layer=2"], {}),
        (2, "run.yaml: unknown key 'hiden-size'; did you mean 'hidden-size'?", [], in_file),
        (2, "--epochs is missing", MODEL, {}),
        (2, "both say how long", once, {"epochs": "1"}),
        (2, "use --isolation sdpa", once, {"isolation": "te"}),
        (1, "--vocab-size 100 is too small", [*once, "--vocab-size=100"], {}),
        (1, "raise --seq-length", [*once, "--seq-length=1"], {}),
    ]
    runs = [Run(shards=[shards], flags=flags, code=code, options=options) for code, _, flags, options in calls]
    for (_, words, _, _), output in zip(calls, run_forked(tmp_path, runs), strict=True):
        said = output.strip().splitlines()[-1]
        assert said.startswith("sft-train: ")
        assert words in said
        assert "Traceback" not in output


@pytest.mark.megatron
def test_what_megatron_refuses_is_said_in_its_words(shards: Path) -> None:
    call = ["--shards", shards, "--device", "cpu", "--", *MODEL, "--train-iters=1", "--num-attention-heads=5"]
    done = sft_train(*call)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sft-train: Megatron refuses the flags: ")
    assert "num_attention_heads is 5" in done.stderr.splitlines()[-1]


@pytest.mark.megatron
def test_damaged_shards(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"train": random_pairs(6, seed=1)})
    with open(path / "train/tokens/00000.bin", "ab") as file:
        file.write(b"\0")
    refused(1, "cut off or appended", "--shards", path, "--device", "cpu", "--", *MODEL, "--train-iters=1")
