"""The whole road under the Megatron that is first on PYTHONPATH: a mixture, packed; evaluated, saved and resumed.

Two context ranks give the losses of one. And a Hugging Face folder goes through it: one step at a learning rate of 0 on
two tensor ranks, exported bit for bit.

    PYTHONPATH=CHECKOUT python tests/support/megatron_road.py

Prints the version, where it lies, and the losses, which are the same for all versions: same data, weights and order.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import hf_folders
from toy_runs import TOY_MODEL, losses, random_pairs, turn, write_shards

EXPECTED = {1: 4.794102, 6: 4.705891}
"""Loss by step, on a CPU."""


def train(folder: Path, *flags: str) -> str:
    command = [
        sys.executable,
        "-m",
        "sft_shards.trainer",
        "--random-weights",
        "--shards",
        folder / "a",
        "--shards",
        f"{folder / 'b'}:0.5",
    ]
    command += ["--device", "cpu", "--cache-dir", folder / "cache", "--", *TOY_MODEL, "--seq-length=96", "--lr=1e-2"]
    command += ["--global-batch-size=4", "--train-iters=6", "--eval-interval=6", *flags]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    return done.stdout + done.stderr


def there_and_back(folder: Path) -> None:
    """A model folder, a step at a learning rate of 0, and an export: the same bytes."""
    base, saved, out = hf_folders.write(folder / "base", dtype="float32"), folder / "tuned", folder / "exported"
    train = [
        "--shards",
        folder / "a",
        "--model",
        base,
        "--device",
        "cpu",
        "--nproc",
        2,
        "--cache-dir",
        folder / "cache",
    ]
    flags = ["--seq-length=64", "--lr=0", "--min-lr=0", "--weight-decay=0", "--train-iters=1", "--eval-iters=0"]
    for words in (
        [*train, "--", *flags, "--tensor-model-parallel-size=2", f"--save={saved}"],
        ["export", saved, "--output", out],
    ):
        command = [sys.executable, "-m", "sft_shards.trainer", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def shared_positions(folder: Path) -> None:
    """Two context ranks give the losses of one process: packs are the same, as each conversation divides by 4."""
    pairs = [
        turn(range(10, 10 + asked), range(40, 42 + 4 * said - asked)) for asked in (3, 6, 9) for said in range(3, 11)
    ]
    write_shards(folder / "c", {"train": pairs})
    base = hf_folders.write(folder / "start", dtype="float32")
    found = []
    for ranks in (1, 2):
        call = ["--shards", folder / "c", "--model", base, "--nproc", ranks, "--cache-dir", folder / "cache"]
        call += ["--device", "cpu", "--", "--seq-length=64", "--lr=1e-2", "--global-batch-size=4", "--train-iters=3"]
        call += ["--eval-iters=0", "--log-interval=1", f"--context-parallel-size={ranks}"]
        command = [sys.executable, "-m", "sft_shards.trainer", *call]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
        found.append(losses(done.stdout + done.stderr))
    alone, shared = found
    assert sorted(alone) == sorted(shared) == [1, 2, 3]
    assert all(abs(alone[step] - shared[step]) < 2e-6 * alone[step] for step in alone), found


def main() -> None:
    """Run it; exit status 1 where something is not as it should be."""
    found_spec = find_spec("megatron.core")  # found and not imported: some need the stand-in for that
    assert found_spec is not None
    assert found_spec.origin is not None
    version = run_path(str(Path(found_spec.origin).with_name("package_info.py")))["__version__"]
    # The writer of torch_dist in 0.12 does not know the torch of today.
    form = "torch" if version.startswith("0.12.") else "torch_dist"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "a", {"train": random_pairs(60, seed=1), "valid": random_pairs(9, seed=2)}, shards=2)
        write_shards(folder / "b", {"train": random_pairs(30, seed=3), "valid": random_pairs(5, seed=4)})
        saved = [f"--{word}={folder / 'checkpoint'}" for word in ("save", "load")]
        first = train(folder, *saved, "--save-interval=3", "--exit-interval=3", f"--ckpt-format={form}")
        second = train(folder, *saved, f"--ckpt-format={form}")
        shared_positions(folder)
        if form == "torch_dist":
            there_and_back(folder)
    found = {**losses(first), **losses(second)}
    del found[2], found[5]  # Megatron's second line after a start is a mean
    validation = re.search(r"validation loss at iteration 6 .*", second)
    assert validation
    assert all(word in validation[0] for word in ("lm loss value", "lm loss/a value", "lm loss/b value"))
    assert sorted(found) == [1, 3, 4, 6]
    for step, loss in EXPECTED.items():
        assert abs(found[step] - loss) < 2e-5, f"step {step}: {found[step]}, expected {loss}"
    print(f"ok {version} {found_spec.origin} {form} {found} {validation[0].split('|')[1].strip()}")


if __name__ == "__main__":
    main()
