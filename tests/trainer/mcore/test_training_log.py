"""What is said while a run trains, at its end, and by an evaluation alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from toy_runs import TOY_MODEL, Pair, random_pairs, sft_train, write_shards

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import resolve
from sft_shards.trainer.mcore.training_log import Meter, TrainingLog, duration

pytestmark = pytest.mark.megatron

FLAGS = [*TOY_MODEL, "--seq-length=64", "--global-batch-size=4", "--lr=1e-2", "--log-interval=2"]
TRAIN, HELD_OUT = random_pairs(16, seed=1), random_pairs(5, seed=2)


def train(path: Path, *flags: str, own: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    done = sft_train("--shards", path, "--device", "cpu", *own, "--", *FLAGS, *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done


def trained(pairs: list[Pair]) -> int:
    return sum(sum(mask) for _, mask in pairs)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    return write_shards(path, {"train": TRAIN, "valid": HELD_OUT, "test": HELD_OUT})


@pytest.mark.parametrize(
    "layout", [(), ("--pipeline-model-parallel-size=2",), ("--context-parallel-size=2",)], ids=["DP 2", "PP 2", "CP 2"]
)
def test_lines_and_the_end_count_what_was_trained(shards: Path, tmp_path: Path, layout: tuple[str, ...]) -> None:
    saved = tmp_path / "saved"
    own = ("--epochs", 2, "--batching", "padded", "--nproc", 2)  # each of 16 conversations is read twice
    said = train(shards, *layout, f"--save={saved}", own=own).stderr
    lines = re.findall(r"^sft-train: (step .*)$", said, re.MULTILINE)
    assert [line.split(":")[0] for line in lines] == ["step 2/8", "step 4/8", "step 6/8", "step 8/8"]
    assert re.fullmatch(r"step 2/8: loss \d\.\d{4}", lines[0]), "the first steps load and warm up"
    number = r"[\d,]+"
    middle = rf"step 4/8: loss \d\.\d{{4}}, {number} trained tokens/s, {number} positions/s, \d+ s left"
    assert re.fullmatch(middle, lines[1])
    assert "left" not in lines[3]
    loss = lines[3].split("loss ")[1].split(",")[0]
    end = re.search(
        r"done: 8 steps in .*, ([\d,]+) trained tokens, loss (\S+) at the end, validation \d\.\d{4}$",
        said,
        re.MULTILINE,
    )
    assert end, said
    assert int(end[1].replace(",", "")) == 2 * trained(TRAIN)
    assert end[2] == loss
    assert f"checkpoint of step 8 in {saved}" in said


def test_a_run_that_saves_nothing_says_so(shards: Path) -> None:
    assert "nothing was saved, because --save is not given" in train(shards, "--train-iters=1").stderr


@pytest.fixture(scope="module")
def saved(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint, and the validation loss that its run printed at its end."""
    folder = tmp_path_factory.mktemp("saved")
    said = train(shards, "--train-iters=4", f"--save={folder}").stdout
    return folder, re.findall(r"validation loss at iteration 4 .*lm loss value: (\S+)", said)[-1]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_evaluation_gives_the_loss_that_the_run_gave(shards: Path, saved: tuple[Path, str], split: str) -> None:
    folder, loss = saved
    flags = [flag for flag in FLAGS if not flag.startswith("--lr=")]
    words = ["--shards", shards, "--device", "cpu", "--evaluate", split, "--", *flags, f"--load={folder}"]
    before = sorted(folder.rglob("*"))
    done = sft_train(*words, f"--save={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{split}: loss {float(loss):.4f}, perplexity ")
    assert f"evaluation of split {split}: " in done.stderr
    assert "5 conversations" in done.stderr
    assert "iteration        1/" not in done.stdout, "nothing is trained"
    assert sorted(folder.rglob("*")) == before, "nothing is saved"


def test_an_evaluation_names_each_directory(shards: Path, saved: tuple[Path, str], tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", {"train": TRAIN, "test": random_pairs(3, seed=9)})
    done = train(shards, f"--load={saved[0]}", own=("--shards", other, "--evaluate", "test"))
    assert re.search(r"^test: loss .*\n  shards\S*: loss \d.*\n  other: loss \d", done.stdout, re.MULTILINE), (
        done.stdout
    )


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", {"train": TRAIN})
    done = sft_train("--shards", path, "--device", "cpu", "--evaluate", "test", "--dry-run", "--", *FLAGS)
    assert done.returncode == 1
    assert "no conversation with a trained token in split test" in done.stderr.splitlines()[-1]


def test_what_is_evaluated_is_scanned_before(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", {"train": TRAIN, "test": HELD_OUT})
    masks = path / "test" / "loss_mask" / "00000.bin"
    masks.write_bytes(b"\2" + masks.read_bytes()[1:])
    words = ["--shards", path, "--device", "cpu", "--cache-dir", tmp_path / "cache"]
    done = sft_train(*words, "--evaluate", "test", "--dry-run", "--", *FLAGS)
    assert done.returncode == 1
    assert "shard 00000 of split test: mask value 2 is neither 0 nor 1" in done.stderr.splitlines()[-1]
    done = sft_train(*words, "--dry-run", "--", *FLAGS, "--train-iters=1")
    assert done.returncode == 0, "training does not read the test split"


@pytest.mark.parametrize(("flag", "package"), [("tensorboard_dir", "tensorboard"), ("wandb_project", "wandb")])
def test_a_log_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, flag: str, package: str) -> None:
    args = type("Args", (), {flag: "there"})()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} needs the package {package}"):
        resolve._check_loggers(args)
    resolve._check_loggers(type("Args", (), {flag: None})())


def test_the_summary_says_what_nobody_set(shards: Path, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", {"train": random_pairs(8, seed=5)})
    words = ["--shards", shards, "--shards", f"{other}:0.5", "--device", "cpu", "--epochs", 3, "--batching", "padded"]
    flags = [flag for flag in FLAGS if "global-batch" not in flag]
    said = sft_train(*words, "--dry-run", "--", *flags, "--lr-decay-style=cosine").stdout
    assert "optimizer: adam (default), learning rate 0.01, cosine decay, to 0 (default), no warm-up (default)" in said
    assert "global batch 1 (default: one micro-batch on each DP rank; --global-batch-size)" in said
    share = trained(TRAIN) / (trained(TRAIN) + 0.5 * trained(random_pairs(8, seed=5)))
    assert f"16 conversations in 16 samples x 1 an epoch; 3.00 times in this run, {share:.1%} of the trained" in said
    assert "└─ other: 8 conversations in 8 samples x 0.5 an epoch; 1.50 times in this run" in said
    assert re.search(r"; a step has \d+ tokens, \d+ of them trained", said)
    assert "weights: RANDOM (--random-weights)" in said


def test_an_evaluation_without_a_loss_says_nothing() -> None:
    log = TrainingLog(meter=Meter(), seq_length=8, say=print, clock=lambda: 0.0)
    assert log.evaluation("test") == []


def test_durations_have_two_units() -> None:
    assert [duration(each) for each in (0.2, 59.7, 200, 7322, 90000)] == [
        "0 s", "1 min", "3 min 20 s", "2 h 2 min", "1 d 1 h",
    ]  # fmt: skip
