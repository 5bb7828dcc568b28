"""From real files to shards, read back by the stock reader and compared with an independent reading of the input."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.unit


def stock(directory: Path, split: str = "train") -> list[tuple[list[int], list[int]]]:
    """Every sequence of a split through Megatron's own reader."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    out = []
    for prefix in sorted((directory / split / "tokens").glob("*.idx")):
        tokens = IndexedDataset(str(prefix.with_suffix("")))
        masks = IndexedDataset(str(directory / split / "loss_mask" / prefix.stem))
        out += [(tokens[row].tolist(), masks[row].tolist()) for row in range(len(tokens))]
    return out


def expected(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Ids and mask of a ChatML conversation, message by message: control tokens are where texts may be cut."""
    ids, mask = [], []

    def add(text: str, trained: int) -> None:
        new = tokenizer(text, add_special_tokens=False).input_ids
        ids.extend(new)
        mask.extend([trained] * len(new))

    for message in messages:
        add("<|im_start|>", 0)
        answer = message["role"] == "assistant"
        whole = tokenizer(
            f"{message['role']}\n{message['content']}", add_special_tokens=False, return_offsets_mapping=True
        )
        ids += whole.input_ids
        header = len(message["role"]) + 1
        mask += [int(answer and end > header) for _, end in whole.offset_mapping]
        add("<|im_end|>", int(answer))
        add("\n", 0)
    return ids, mask


def alpaca(data: Path) -> list[list[dict[str, str]]]:
    out = []
    for record in json.loads((data / "alpaca_en.json").read_text("utf-8")):
        question = record["instruction"] + ("\n\n" + record["input"] if record["input"] else "")
        out.append([{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}])
    return out


def openai(data: Path) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (data / "openai_tr.jsonl").read_text("utf-8").split("\n") if line]


def chatml(data: Path) -> list[list[dict[str, str]]]:
    out = []
    for line in (data / "chatml_zh.jsonl").read_text("utf-8").split("\n"):
        if line:
            turns = json.loads(line)["text"].split("<|im_start|>")[1:]
            pairs = [turn.rsplit("<|im_end|>", 1)[0].split("\n", 1) for turn in turns]
            out.append([{"role": role, "content": content} for role, content in pairs])
    return out


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "openai_tr.parquet"
    pq.write_table(pa.table({"messages": openai(data)}), path, row_group_size=60)
    return path


@pytest.mark.parametrize("name", ["alpaca_en.json", "chatml_zh.jsonl", "openai_tr.jsonl", "parquet"])
def test_shards_are_an_independent_reading_of_the_input(name, data, bpe_folder, parquet, tmp_path, preprocess):
    source = parquet if name == "parquet" else data / name
    status, _, err = preprocess("run", source, "--output", tmp_path / "out", "--tokenizer", bpe_folder)
    assert status == 0, err
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(bpe_folder))
    conversations = {"alpaca_en.json": alpaca, "chatml_zh.jsonl": chatml}.get(name, openai)(data)
    read = stock(tmp_path / "out")
    assert len(read) == len(conversations)
    for (ids, mask), messages in zip(read, conversations, strict=True):
        assert ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert (ids, mask) == expected(messages, tokenizer)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"]["read"] == manifest["counts"]["written"] == len(conversations)
    assert manifest["splits"]["train"]["trained_tokens"] == sum(sum(mask) for _, mask in read)
    assert preprocess("verify", tmp_path / "out")[0] == 0


def test_rows_say_where_each_sequence_came_from(data, bpe_folder, tmp_path, preprocess):
    lines = (data / "openai_tr.jsonl").read_text("utf-8").split("\n")[:6]
    lines[2] = "{broken"
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n", "utf-8")
    assert preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    rows = pq.read_table(tmp_path / "out" / "train" / "rows" / "00000.parquet").to_pylist()
    read = stock(tmp_path / "out")
    assert [row["record"] for row in rows] == [0, 1, 3, 4, 5]
    assert {row["source"] for row in rows} == {str(path)}
    assert [(row["tokens"], row["trained_tokens"]) for row in rows] == [(len(ids), sum(mask)) for ids, mask in read]
    (reject,) = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert (reject["source"], reject["record"], reject["reason"]) == (str(path), 2, "broken_json")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"] == {"read": 6, "written": 5, "rejected": {"broken_json": 1}}


def test_splits_go_by_content(data, bpe_folder, tmp_path, preprocess):
    records = [json.loads(line) for line in (data / "openai_tr.jsonl").read_text("utf-8").split("\n") if line]
    shares = ["--valid-fraction", "0.2", "--test-fraction", "0.1"]

    def split_of(order, name):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in order), "utf-8")
        assert preprocess("run", path, "--output", tmp_path / name, "--tokenizer", bpe_folder, *shares)[0] == 0
        return {tuple(ids): split for split in ("train", "valid", "test") for ids, _ in stock(tmp_path / name, split)}

    some = split_of(records[:150], "some")
    every = split_of([*records[::-1], *records[:20]], "every")
    assert all(every[ids] == split for ids, split in some.items())
    sizes = [list(every.values()).count(split) / len(every) for split in ("train", "valid", "test")]
    assert np.allclose(sizes, [0.7, 0.2, 0.1], atol=0.1)


def test_inspect_marks_exactly_what_carries_loss(data, bpe_folder, tmp_path, preprocess):
    assert preprocess("run", data / "openai_tr.jsonl", "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    messages = openai(data)[7]
    status, out, _ = preprocess("inspect", tmp_path / "out", "--row", "7")
    assert status == 0
    head, _, text = out.partition("\n")
    assert "record 7" in head
    body = "".join(
        f"<|im_start|>{message['role']}\n"
        + (
            f"⟦{message['content']}<|im_end|>⟧\n"
            if message["role"] == "assistant"
            else f"{message['content']}<|im_end|>\n"
        )
        for message in messages
    )
    assert text.rstrip("\n") == body.rstrip("\n")
    _, coloured, _ = preprocess("inspect", tmp_path / "out", "--row", "7", "--color", "always")
    assert "\x1b[32m" in coloured
    value = json.loads(preprocess("inspect", tmp_path / "out", "--row", "7", "--json")[1])
    assert (value["tokens"], value["loss_mask"]) == stock(tmp_path / "out")[7]
