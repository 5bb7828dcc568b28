"""A tokenizer's other templates: they are copied, hashed, named in the manifest and used for conversations with tools,
as files in `additional_chat_templates/` and as a list in tokenizer_config.json alike."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from preprocess_jobs import TOKENIZER, contents, error_line
from template_texts import CHATML

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import Manifest, ShardDirectory
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

TOOL_USE = (
    "{% for tool in tools %}{{ '<|im_start|>system\\n' + tool.function.name + '<|im_end|>\\n' }}{% endfor %}" + CHATML
)
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.fixture
def folder(tmp_path):
    """With the second template as a file."""
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "chat_template.jinja").write_text(CHATML, "utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOL_USE, "utf-8")
    (folder / "additional_chat_templates" / "rag.jinja").write_text(CHATML, "utf-8")
    return folder


def as_list(folder):
    """The same templates as a list in tokenizer_config.json."""
    shutil.rmtree(folder / "additional_chat_templates")
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOL_USE}]
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}), "utf-8")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps(one) + "\n" for one in ({"messages": TALK}, {"messages": TALK, "tools": [TOOL]}))
    )
    return path


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.process
def test_they_lie_in_the_directory_and_stand_in_the_manifest(preprocess, tmp_path, folder, data):
    from transformers import AutoTokenizer

    def run(name, *words):
        status, _, err = preprocess("run", data, "--tokenizer", folder, "--output", tmp_path / name, *words)
        assert status == 0, err
        assert preprocess("verify", tmp_path / name)[0] == 0
        return Manifest.read(tmp_path / name)

    by_files = run("files", "--workers", 1)
    assert by_files.tokenizer.files["additional_chat_templates/tool_use.jinja"] == sha256(TOOL_USE)
    assert by_files.tokenizer.files["additional_chat_templates/rag.jinja"] == sha256(CHATML)
    copy = tmp_path / "files" / "tokenizer"
    assert (copy / "additional_chat_templates" / "tool_use.jinja").read_text("utf-8") == TOOL_USE
    assert (by_files.template.tools_source, by_files.template.tools_sha256) == (TOOL_USE, sha256(TOOL_USE))
    shutil.copytree(copy, tmp_path / "again")
    assert Tokenizer(str(copy)).tool_template == TOOL_USE, "the copy is the same tokenizer"
    reference = AutoTokenizer.from_pretrained(folder)
    split = ShardDirectory(tmp_path / "files").split("train")
    for row, tools in enumerate((None, [TOOL])):
        ids = reference.apply_chat_template(TALK, tools=tools, return_dict=False)
        assert split[row][0].tolist() == ids
    shutil.copytree(tmp_path / "files", tmp_path / "other")
    assert preprocess("merge", tmp_path / "files", tmp_path / "other", "--output", tmp_path / "merged")[0] == 0
    assert preprocess("verify", tmp_path / "merged")[0] == 0
    as_list(folder)
    by_list = run("list", "--workers", 1)
    assert by_list.template.tools_sha256 == by_files.template.tools_sha256
    assert (tmp_path / "list" / "train").is_dir()
    for kind in ("tokens", "loss_mask"):
        assert contents(tmp_path / "list" / "train" / kind) == contents(tmp_path / "files" / "train" / kind)


@pytest.mark.process
def test_directories_with_another_second_template_are_not_merged(preprocess, tmp_path, folder, data):
    for name, text in (("a", TOOL_USE), ("b", TOOL_USE + " ")):
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text, "utf-8")
        words = ("run", data, "--tokenizer", folder, "--workers", 1, "--output", tmp_path / name)
        assert preprocess(*words)[0] == 0
    status, _, err = preprocess("merge", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c")
    assert status == 2
    assert "was made with another template for tools than" in error_line(err)
    (tmp_path / "a" / "tokenizer" / "additional_chat_templates" / "rag.jinja").write_text("x", "utf-8")
    status, out, _ = preprocess("verify", tmp_path / "a")
    assert status == 1
    assert "tokenizer/additional_chat_templates/rag.jinja: not the bytes that the manifest names" in out


@pytest.mark.unit
def test_links_to_files_elsewhere_are_refused(folder, tmp_path):
    outside = tmp_path / "outside"
    (folder / "additional_chat_templates").rename(outside)
    (folder / "additional_chat_templates").symlink_to(outside)
    with pytest.raises(UsageError, match=r"rag\.jinja: is a link to a file elsewhere"):
        Tokenizer(str(folder))
    (folder / "additional_chat_templates").unlink()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").symlink_to(outside / "tool_use.jinja")
    with pytest.raises(UsageError, match=r"tool_use\.jinja: is a link to a file elsewhere"):
        Tokenizer(str(folder))
