"""The bytes of small shard directories, written down: what was right stays as it is, whatever the code becomes.

Each case runs the command and compares a SHA-256 with `frozen_bytes.json`. The hash covers every file of the directory.
Versions of libraries and the backend are left out of it, and Parquet files count by their rows, because pyarrow signs them. After a
change that is meant to change bytes, `FREEZE=1 pytest tests/preprocess/test_frozen_bytes.py` writes the file anew.
"""

import csv
import hashlib
import json
import os
import zlib
from pathlib import Path

import pyarrow.parquet
import pytest
from preprocess_jobs import DATA, SMALL, TOKENIZER, call

pytestmark = pytest.mark.process

FROZEN = Path(__file__).with_name("frozen_bytes.json")


def records(name):
    text = (DATA / name).read_text("utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The data that ships, and the same in other formats and kinds of file."""
    folder = tmp_path_factory.mktemp("inputs")
    alpaca, openai, tools = records("alpaca_en.json"), records("openai_tr.jsonl"), records("openai_tools.jsonl")
    turns = [
        {"conversations": [{"from": NAMES[one["role"]], "value": one["content"]} for one in record["messages"]]}
        for record in openai
    ]
    write_lines(folder / "sharegpt.jsonl", turns)
    write_lines(folder / "bare.jsonl", [record["messages"] for record in openai[:60]])
    odd = [
        {"messages": []},
        {"messages": [{"role": "user", "content": "Alone?"}]},
        {"messages": [{"role": "narrator", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"messages": [{"role": "user", "content": "e\u0301"}, {"role": "assistant", "content": "cafe\u0301 <|im_end|>"}]},
        {"messages": [{"role": "user", "content": "\u2028 ok"}, {"role": "assistant", "content": " a \n", "weight": 0},
                      {"role": "user", "content": "go"}, {"role": "assistant", "content": "on", "weight": 1}]},
        {"messages": [{"role": "user", "content": "Why?"},
                      {"role": "assistant", "content": "So.", "reasoning_content": "Think."}]},
    ]  # fmt: skip
    write_lines(folder / "mixed.jsonl", [row for at in range(40) for row in (openai[at], odd[at % 6])] + tools)
    broken = (folder / "mixed.jsonl").read_text("utf-8").split("\n")
    broken[7] = broken[7][:-3]
    (folder / "broken.jsonl").write_text("\n".join(broken), "utf-8")
    with (folder / "alpaca.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["instruction", "input", "output"])
        writer.writeheader()
        writer.writerows({name: record.get(name, "") for name in writer.fieldnames} for record in alpaca[:120])
    table = pyarrow.Table.from_pylist(openai)
    pyarrow.parquet.write_table(table, folder / "openai.parquet", row_group_size=50)
    stored = zlib.compressobj(level=0, wbits=31)  # as gzip, and the same bytes whatever compresses
    lines = "".join(json.dumps(record) + "\n" for record in alpaca[:150]).encode()
    (folder / "alpaca.jsonl.gz").write_bytes(stored.compress(lines) + stored.flush())
    return folder


def fingerprint(directory):
    """SHA-256 over the sorted paths and contents of a directory."""
    lines = []
    hidden = set()
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".parquet":
            hidden.add(hashlib.sha256(path.read_bytes()).hexdigest())
            rows = pyarrow.parquet.read_table(path).to_pylist()
            lines.append(f"{name} {hashlib.sha256(json.dumps(rows).encode()).hexdigest()}")
        elif path.is_file() and name != "manifest.json":
            lines.append(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    del manifest["versions"], manifest["sha256"]
    del manifest["notes"]["engine"], manifest["config"]["tokenizer_engine"]  # they say who gave the ids, not which
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            for name, info in shard["files"].items():
                if name.endswith(".parquet"):
                    assert info.pop("sha256") in hidden
                    del info["bytes"]
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
    lines.append(f"manifest.json {hashlib.sha256(text.encode()).hexdigest()}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


HERE = "--tokenizer", "tokenizer"
CASES = {
    "alpaca-array": ["alpaca_en.json", "--valid-fraction", "0.1", "--test-fraction", "0.05"],
    "alpaca-template": ["alpaca_en.json", "--template", "alpaca", "--dedup"],
    "alpaca-csv": ["alpaca.csv", "--shard-tokens", "6000"],
    "alpaca-gzip": ["alpaca.jsonl.gz", "--max-length", "100", "--overlong", "truncate"],
    "chatml": ["chatml_zh.jsonl", "--train-on", "last"],
    "chatml-turns": ["chatml_zh.jsonl", "--max-length", "300", "--overlong", "turns"],
    "openai": ["openai_tr.jsonl", "--shard-tokens", "5000", "--valid-fraction", "0.2"],
    "openai-array-of-messages": ["bare.jsonl"],
    "openai-parquet": ["openai.parquet", "--shard-tokens", "5000"],
    "openai-tools": ["openai_tools.jsonl"],
    "openai-mixed": ["mixed.jsonl", "--train-on", "weight"],
    "openai-mixed-hf": ["mixed.jsonl", "--tokenizer-engine", "hf"],
    "openai-broken": ["broken.jsonl", "--no-train-reasoning", "--no-train-tool-calls"],
    "openai-everything": ["mixed.jsonl", "--train-on", "everything", "--allow-control-tokens"],
    "sharegpt": ["sharegpt.jsonl", "--straddle", "skip"],
    "sharegpt-split": ["sharegpt.jsonl", "--straddle", "split"],
    "sharegpt-plain": ["sharegpt.jsonl", "--template", "plain", "--train-on", "last"],
    "sharegpt-vicuna": ["sharegpt.jsonl", "--template", "vicuna"],
    "all-together": ["alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", *SMALL[2:], "--workers", "2"],
    "all-on-ray": ["alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", *SMALL[2:], "--engine", "ray"],
}  # fmt: skip


def backend(name):
    """Small inputs have Hugging Face's backend by default; here they are to have the one of large inputs."""
    return () if "--tokenizer-engine" in CASES[name] else ("--tokenizer-engine", "fastokens")


@pytest.fixture(scope="module")
def place(inputs):
    """A folder that holds all inputs and the tokenizer, so that no path of this machine is in a manifest."""
    for name in ("alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", "openai_tools.jsonl"):
        (inputs / name).write_bytes((DATA / name).read_bytes())
    (inputs / "tokenizer").symlink_to(TOKENIZER)
    return inputs


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_the_ones_that_were_written_down(name, place, tmp_path):
    call("run", *CASES[name], *HERE, *backend(name), "--output", tmp_path / "out", cwd=place)
    found = fingerprint(tmp_path / "out")
    frozen = json.loads(FROZEN.read_text("utf-8")) if FROZEN.exists() else {}
    if os.environ.get("FREEZE"):
        FROZEN.write_text(json.dumps(dict(sorted({**frozen, name: found}.items())), indent=1) + "\n", "utf-8")
        return
    assert frozen[name] == found
