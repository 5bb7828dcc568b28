"""Toy shards, written with the real writers: a small vocabulary, conversations as lists of (role, ids)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sft_shards.formats.shards import (
    MASK_DTYPE,
    Counts,
    FileInfo,
    IndexedWriter,
    Manifest,
    Notes,
    ShardInfo,
    SplitInfo,
    TemplateInfo,
    TokenizerInfo,
    token_dtype,
)
from sft_shards.formats.shards.files import sha256_file

VOCABULARY = {f"t{number}": number for number in range(120)}
STOP, PAD, USER, ASSISTANT = 1, 1, 2, 3
"""The stop token is the padding too: a mask must never be inferred from ids."""
Pair = tuple[Sequence[int], Sequence[int]]
"""Ids and unshifted loss mask of one conversation."""


def turn(prompt: Sequence[int], answer: Sequence[int]) -> Pair:
    """`<user> prompt <assistant> answer <stop>`: the answer and its stop carry loss."""
    ids = [USER, *prompt, ASSISTANT, *answer, STOP]
    return ids, [0] * (len(prompt) + 2) + [1] * (len(answer) + 1)


def join(*pairs: Pair) -> Pair:
    """Turns one after the other."""
    return [i for ids, _ in pairs for i in ids], [m for _, mask in pairs for m in mask]


def random_pairs(
    count: int, *, seed: int, answer: tuple[int, int] = (1, 40), prompt: tuple[int, int] = (2, 12)
) -> list[Pair]:
    """Conversations of random ids, with prompts and answers of very different lengths."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        asked, said = rng.integers(*prompt), rng.integers(*answer)
        pairs.append(turn(rng.integers(10, 120, asked).tolist(), rng.integers(10, 120, said).tolist()))
    return pairs


def vocabulary_hash(vocabulary: dict[str, int]) -> str:
    lines = "\n".join(f"{json.dumps(token)}\t{number}" for token, number in sorted(vocabulary.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_shards(
    directory: Path,
    splits: dict[str, Iterable[Pair]],
    *,
    shards: int = 1,
    vocabulary: dict[str, int] = VOCABULARY,
    eos: int = STOP,
    pad: int = PAD,
    name: str = "toy",
) -> Path:
    """A complete shard directory, each split cut into `shards` shards."""
    dtype = token_dtype(len(vocabulary))
    infos = {}
    for split, pairs in splits.items():
        pairs = list(pairs)
        made = []
        for number in range(shards):
            part = pairs[number * len(pairs) // shards : (number + 1) * len(pairs) // shards]
            if part:
                made.append(_write_shard(directory / split, f"{number:05d}", part, dtype, len(vocabulary)))
        infos[split] = SplitInfo.of(tuple(made))
    total = sum(info.sequences for info in infos.values())
    Manifest(
        config={},
        sources=(),
        tokenizer=TokenizerInfo(
            name=name,
            vocab_size=len(vocabulary),
            vocab_sha256=vocabulary_hash(vocabulary),
            dtype=dtype.name,
            eos_id=eos,
            pad_id=pad,
            bos_id=None,
        ),
        template=TemplateInfo(name="toy", sha256="", stop=("t1",)),
        splits=infos,
        counts=Counts(read=total, written=total, rejected={}),
        notes=Notes(),
        versions={},
    ).write(directory)
    return directory


def _write_shard(split: Path, name: str, pairs: list[Pair], dtype: np.dtype, limit: int) -> ShardInfo:
    files = {}
    lengths = np.array([len(ids) for ids, _ in pairs], dtype=np.int64)
    for folder, kind, column, top in (("tokens", dtype, 0, limit), ("loss_mask", MASK_DTYPE, 1, 2)):
        (split / folder).mkdir(parents=True, exist_ok=True)
        writer = IndexedWriter(split / folder / name, kind, limit=top)
        writer.append(np.concatenate([np.asarray(pair[column]) for pair in pairs]), lengths)
        writer.close()
        for suffix in (".bin", ".idx"):
            path = split / folder / f"{name}{suffix}"
            files[f"{folder}/{name}{suffix}"] = FileInfo(bytes=path.stat().st_size, sha256=sha256_file(path))
    return ShardInfo(
        name=name,
        sequences=len(pairs),
        tokens=int(lengths.sum()),
        trained_tokens=sum(sum(mask) for _, mask in pairs),
        longest=int(lengths.max()),
        files=files,
    )


PLUGIN = Path(__file__).parent / "plugin"
"""An installed package with stages of its own, for PYTHONPATH."""
TOY_MODEL = [
    "--num-layers=2",
    "--hidden-size=32",
    "--num-attention-heads=4",
    "--position-embedding-type=rope",
    "--swiglu",
    "--normalization=RMSNorm",
    "--disable-bias-linear",
    "--make-vocab-size-divisible-by=64",
    "--log-interval=1",
]


def sft_train(*words: object, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; a call that trains and names no model starts from random weights."""
    command = [sys.executable, "-m", "sft_shards.trainer", *random_start(words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, check=False
    )


def random_start(words: Sequence[object]) -> list[str]:
    """The words of a call of `sft-train`, with --random-weights where it trains and names no model."""
    call = [str(word) for word in words]
    trains = {"--shards", "--config"} & set(call) and not {"--model", "doctor"} & set(call)
    return ["--random-weights", *call] if trains else call


def run_script(script: str, *words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a script beside the tests in a process of its own (the stand-in for a GPU is for good)."""
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done


@dataclass(kw_only=True)
class Run:
    """One job for `run_forked`."""

    shards: Sequence[object]
    flags: Sequence[str]
    nproc: int = 1
    kill: str | None = None
    code: int = 0
    """Exit status that is expected."""
    options: dict[str, object] = field(default_factory=dict)


def run_forked(folder: Path, runs: Sequence[Run], *, timeout: float = 580) -> list[str]:
    """The output of each run, in this order, one after the other; see `forked_ranks.py`."""
    jobs = [
        {
            "job": {
                "shards": [*map(str, run.shards)],
                "device": "cpu",
                "flags": [*run.flags],
                **_start(run),
                **run.options,
            },
            "nproc": run.nproc,
            "kill": run.kill,
        }
        for run in runs
    ]
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    outputs = []
    done = run_script("forked_ranks.py", path, timeout=timeout)
    for run, (codes, output) in zip(runs, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert codes == [-9 if run.kill else run.code] * run.nproc, output[-4000:]
        outputs.append(output)
    return outputs


def _start(run: Run) -> dict[str, bool]:
    return {"random_weights": "model" not in run.options}


def losses(output: str) -> dict[int, float]:
    """The training loss of each iteration, as printed (seven digits)."""
    found = re.findall(r"iteration +(\d+)/.*lm loss: (\S+)", output)
    return {int(step): float(loss) for step, loss in found}


def tokenizer_folder(folder: Path, vocabulary: dict[str, int]) -> str:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))).save_pretrained(
        folder
    )
    return str(folder)
