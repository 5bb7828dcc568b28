"""The Python interface: `sft_shards.open` and `sft_shards.run`, and that docs/python.md shows what happens."""

from __future__ import annotations

import doctest
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from preprocess_jobs import DATA, TOKENIZER, contents
from toy_runs import PAD, Pair, random_pairs, turn, write_shards

import sft_shards
from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.data.conversations import Conversations, Shards

ROOT = Path(__file__).parents[1]
PAIRS = random_pairs(11, seed=3)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return sft_shards.open(write_shards(tmp_path / "shards", {"train": PAIRS, "valid": PAIRS[:2]}, shards=3))


def pairs(conversations: Conversations) -> list[Pair]:
    return [(tokens.tolist(), mask.tolist()) for tokens, mask in conversations]


@pytest.mark.unit
def test_splits_are_a_mapping_and_conversations_a_sequence(shards: Shards) -> None:
    assert list(shards) == ["train", "valid"]
    assert "test" not in shards
    with pytest.raises(UsageError, match="no split 'test'"):
        shards["test"]
    train = shards["train"]
    assert pairs(train) == PAIRS
    assert train[-1][0].tolist() == PAIRS[-1][0]
    assert train.lengths.tolist() == [len(ids) for ids, _ in PAIRS]
    for index in (11, -12):
        with pytest.raises(IndexError, match=r"outside 0\.\.10"):
            train[index]


@pytest.mark.unit
@pytest.mark.parametrize("cut", [slice(2, 7), slice(None, None, -1), slice(9, 2, -3), slice(5, 5), slice(-3, None)])
def test_slices_are_those_of_a_list(shards: Shards, cut: slice) -> None:
    part = shards["train"][cut]
    assert pairs(part) == PAIRS[cut]
    assert part.lengths.tolist() == [len(ids) for ids, _ in PAIRS[cut]]
    assert pairs(part[1:]) == PAIRS[cut][1:]
    assert pairs(pickle.loads(pickle.dumps(part))) == PAIRS[cut]


@pytest.mark.unit
def test_a_pickle_holds_no_tokens(shards: Shards) -> None:
    assert len(pickle.dumps(shards["train"])) < 1000


@pytest.mark.unit
def test_names_cannot_forge_a_line(tmp_path: Path) -> None:
    shards = sft_shards.open(write_shards(tmp_path / "a\nb", {"train": PAIRS}, name="x\x1b[2Jy"))
    assert repr(shards).count("\n") == 1
    assert "\x1b" not in repr(shards)
    assert "\n" not in repr(shards["train"])


@pytest.mark.unit
def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such shard directory"):
        sft_shards.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="no tokenizer that can be read"):
        sft_shards.open(write_shards(tmp_path / "shards", {"train": PAIRS}))["train"].text(0)


@pytest.mark.unit
def test_samples_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="tensors are torch's")
    first, second = turn([11, 12], [21, 22]), turn([13], [23])
    train = sft_shards.open(write_shards(tmp_path / "shards", {"train": [first, second]}))["train"]
    packs = train.torch(seq_length=12, cache_dir=tmp_path / "cache")
    assert len(packs) == 1
    sample = packs[0]
    assert sample["tokens"].tolist() == [2, 11, 12, 3, 21, 22, 2, 13, 3, 23, PAD, PAD]
    assert sample["labels"].tolist() == [11, 12, 3, 21, 22, 1, 13, 3, 23, 1, PAD, PAD]
    assert sample["loss_mask"].tolist() == [False] * 3 + [True] * 3 + [False] * 2 + [True] * 2 + [False] * 2
    assert sample["position_ids"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1]
    assert {tensor.dtype for tensor in sample.values()} == {torch.int64, torch.bool}
    assert packs.rows(0) == [0, 1]
    assert torch.equal(pickle.loads(pickle.dumps(packs))[-1]["labels"], sample["labels"])
    padded = train.torch(seq_length=12, batching="padded", cache_dir=tmp_path / "cache")
    assert [int(one["loss_mask"].sum()) for one in padded] == [3, 2]
    for wrong in ({"batching": "paked"}, {"overlong": "cut"}, {"seq_length": 0}):
        with pytest.raises(UsageError):
            train.torch(**{"seq_length": 12, "cache_dir": tmp_path / "cache", **wrong})
    with pytest.raises(UsageError, match="a slice has no pack plan"):
        train[:1].torch(seq_length=12)


@pytest.mark.process
def test_a_program_needs_no_guard_and_may_run_two_jobs(tmp_path: Path) -> None:
    """Worker processes do not import the program that calls `run`; the second job is not the first one's."""
    script = tmp_path / "jobs.py"
    call = f"tokenizer={str(TOKENIZER)!r}, shard_tokens=6000, workers=2"
    script.write_text(
        textwrap.dedent(f"""\
        import sft_shards, sys
        print("begun")
        sft_shards.run({str(DATA / "openai_tr.jsonl")!r}, output="one", {call})
        sft_shards.run({str(DATA / "chatml_zh.jsonl")!r}, output="two", {call})
        """)
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "begun\n"
    for name, source in (("one", "openai_tr.jsonl"), ("two", "chatml_zh.jsonl")):
        alone = tmp_path / f"{name}-alone"
        sft_shards.run(DATA / source, output=alone, tokenizer=TOKENIZER, shard_tokens=6000, workers=1)
        assert contents(tmp_path / name) == contents(alone)


@pytest.mark.unit
def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="valid_fracton: no option of a job; did you mean 'valid_fraction'"):
        sft_shards.run("x.jsonl", output=tmp_path / "out", tokenizer="t", valid_fracton=0.1)


@pytest.mark.process
def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = {*sys.modules}; import sft_shards; print(*sorted({*sys.modules} - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in found if name.startswith("sft_shards") or name == "numpy"] == ["sft_shards"]


@pytest.mark.process
def test_the_document_shows_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the document shows tensors")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path / "cache"))
    failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert not failed
    assert tried > 20


@pytest.mark.process
def test_texts_are_those_of_hugging_face(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shards = sft_shards.run(DATA / "openai_tr.jsonl", output=tmp_path / "out", tokenizer=TOKENIZER, workers=1)
    train, tokenizer = shards["train"], AutoTokenizer.from_pretrained(TOKENIZER)
    for index in range(0, len(train), 17):
        tokens, loss_mask = train[index]
        assert train.text(index) == tokenizer.decode(tokens.tolist())
        spans = train.spans(index)
        assert "".join(span.text for span in spans) == train.text(index)
        assert [span.trained for span in spans] == [
            bool(one) for one in loss_mask[np.r_[True, np.diff(loss_mask) != 0]]
        ]
