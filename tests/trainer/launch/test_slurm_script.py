"""The batch script, to the letter: run by a shell whose `srun` says what it was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.formats.sbatch import site_options
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch.container import Container, check_image, folders
from sft_shards.trainer.launch.slurm import Slurm

pytestmark = pytest.mark.process

CALL = ["--shards", "sh", "--epochs", "3", "--", "--save=out dir", "--load", "out dir", "--lr", "$HOME"]
JOB = Job(shards=("sh",), epochs="3", flags=tuple(CALL[5:]))
ON_NODE = (
    'exec sft-train --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" '
    '--master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" "$@"'
)
SRUN = ["--cpu-bind=none", "--kill-on-bad-exit=0", "--wait=60"]
FAKE = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" "MASTER_PORT=$MASTER_PORT" >> "$RECORD"
exit "${STATUS:-0}"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path / "cache"))
    for name in ("srun", "scontrol"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(FAKE)
        program.chmod(0o755)
    return tmp_path


def run(script: str, here: Path, status: int = 0) -> list[list[str]]:
    """What the script called, word by word."""
    record = here / "record"
    record.unlink(missing_ok=True)
    variables = {
        "PATH": f"{here}/bin:{os.environ['PATH']}", "RECORD": str(record), "STATUS": str(status), "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "n[1-2]",
    }  # fmt: skip
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    done = subprocess.run(["bash", "-s"], input=script, env=variables, text=True, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout == "sft-train: job 12345, restarted 0 times, n[1-2]\n"
    words = record.read_text().split("\0")[:-1]
    calls: list[list[str]] = [[]]
    for word in words:
        if word == "MASTER_PORT=17345":
            calls.append([])
        else:
            calls[-1].append(word)
    return calls[:-1]


def test_what_sbatch_and_srun_are_told(here: Path) -> None:
    slurm = Slurm(nodes=4, options={"account": "lab", "exclusive": "", "time": "8:00:00"}, setup="true  # module load")
    script = slurm.script(JOB, CALL)
    lines = script.splitlines()
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=sft-train",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --chdir={here}",
        f"#SBATCH --output='{here}/out dir/sft-train-%j.log'",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --account=lab",
        "#SBATCH --exclusive",
        "#SBATCH --time=8:00:00",
    ]
    assert lines.index("true  # module load") > lines.index(
        "export MASTER_ADDR=$(hostname)  # this script runs on the first node"
    )
    assert run(script, here) == [["srun", *SRUN, "bash", "-c", ON_NODE, "sft-train", *CALL]]


@pytest.mark.parametrize(("status", "again"), [(0, False), (1, False), (2, False), (130, False), (137, False),
                                               (200, True), (143, True), (138, True)])  # fmt: skip
def test_what_was_told_to_stop_is_queued_again(here: Path, status: int, again: bool) -> None:
    calls = run(Slurm(nodes=1, setup="true").script(JOB, CALL), here, status)
    assert calls[1:] == ([["scontrol", "requeue", "12345"]] if again else [])


def test_whole_nodes_unless_the_user_says_how_many_gpus() -> None:
    def options(given: dict[str, str], device: str = "gpu") -> str:
        return Slurm(nodes=1, options=given).script(Job(shards=("sh",), device=device), [])

    assert "#SBATCH --exclusive\n" in options({})
    assert "#SBATCH --exclusive\n" not in options({"gpus-per-node": "4"})
    assert "#SBATCH --exclusive\n" not in options({"gres": "gpu:8"})
    assert "#SBATCH --exclusive\n" not in options({}, "cpu")
    assert "#SBATCH --signal=TERM@600\n" in options({"signal": "TERM@600"})
    assert "#SBATCH --signal=USR1@120\n" not in options({"signal": "TERM@600"})


def container(here: Path, runtime: str, *options: str) -> list[str]:
    """The words between srun's own options and the shell on the node."""
    where = Container(image="img", runtime=runtime, mounts=("/scratch", f"{here}/a:/b"), options=options)
    script = Slurm(nodes=2, container=where).script(JOB, CALL)
    assert f"mkdir -p {here}/cache '{here}/out dir'\n" in script
    (call,) = run(script, here)
    assert call[:4] == ["srun", *SRUN]
    end = call.index("bash")
    assert call[end:] == ["bash", "-c", ON_NODE, "sft-train", *CALL]
    return call[4:end]


def test_pyxis(here: Path) -> None:
    assert container(here, "pyxis", "--no-container-mount-home") == [
        "--container-image=img",
        f"--container-mounts={here}:{here},/scratch:/scratch,{here}/a:/b",
        f"--container-workdir={here}",
        "--no-container-mount-home",
    ]


def test_apptainer(here: Path) -> None:
    binds = [f"--bind={here}:{here}", "--bind=/scratch:/scratch", f"--bind={here}/a:/b"]
    expected = ["apptainer", "exec", "--rocm", *binds, f"--pwd={here}", "--cleanenv", "img"]
    assert container(here, "apptainer", "--cleanenv") == expected


def test_docker(here: Path) -> None:
    words = container(here, "docker", "--device=/dev/infiniband")
    assert words[:6] == ["docker", "run", "--rm", "--init", "--device=/dev/kfd", "--device=/dev/dri"]
    for word in (
        "--group-add=video",
        "--ipc=host",
        "--shm-size=64G",
        "--network=host",
        "--security-opt=seccomp=unconfined",
    ):
        assert word in words
    # A container sees none of the node's variables but those that are named.
    for name in ("SLURM_NNODES", "SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT", "HSA_ENABLE_SDMA", "NCCL_SOCKET_IFNAME"):
        assert f"--env={name}" in words
    assert f"--env=SFT_SHARDS_CACHE={here}/cache" in words
    volumes = [f"--volume={here}:{here}", "--volume=/scratch:/scratch", f"--volume={here}/a:/b"]
    assert words[-6:] == [*volumes, f"--workdir={here}", "--device=/dev/infiniband", "img"]


def test_a_container_sees_what_the_call_names(here: Path) -> None:
    for name in ("models/m", "tok"):
        (here.parent / f"{here.name}-other" / name).mkdir(parents=True)
    other = here.parent / f"{here.name}-other"
    (other / "run.yaml").touch()
    job = Job(
        shards=(f"{other}/shards:0.5",),
        config_path=str(other / "conf/run.yaml"),
        hf_config=str(other / "models/m"),
        config={"save": str(other / "out"), "tokenizer-model": "Qwen/Qwen2.5-0.5B"},
        flags=("--load", str(other / "out/older"), f"--pretrained-checkpoint={here}/inside"),
        cache_dir="plans",
    )
    expected = {here, *(other / name for name in ("shards", "conf", "models/m", "out"))}
    assert set(folders(job)) == expected


def test_images_and_options_that_cannot_be(here: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.sif: no such image"):
        check_image("no.sif", "apptainer")
    check_image("docker://rocm/megatron-lm", "apptainer")
    check_image("rocm/megatron-lm", "docker")
    assert site_options(["time=1:00", "--exclusive", "comment=a=b"]) == {
        "time": "1:00",
        "exclusive": "",
        "comment": "a=b",
    }
    for bad in ("=x", "a b=1", "--"):
        with pytest.raises(UsageError, match="must have the form"):
            site_options([bad])
