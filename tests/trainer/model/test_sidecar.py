"""`SAVE/hf`: the model ends where the shards' template ends a turn, whatever the base's files say; id 0 is an id too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hf_folders
import pytest
from toy_runs import VOCABULARY, random_pairs, tokenizer_folder, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.trainer.model import hf_config, sidecar, special_tokens
from sft_shards.trainer.model.export_folder import copy_beside

pytestmark = pytest.mark.unit


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    directory = write_shards(tmp_path / "shards", {"train": random_pairs(4, seed=1)})
    tokenizer_folder(directory / "tokenizer", VOCABULARY)
    return directory


def test_stop_tokens_come_first_and_id_0_is_one(shards: Path, tmp_path: Path) -> None:
    base = hf_folders.write(tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "temperature": 0.6}))
    manifest = Manifest.read(shards)
    manifest = replace(manifest, template=replace(manifest.template, stop=("t0", "t5"), source="{{ messages }}"))
    shape = hf_config.read(str(base))
    sidecar.write(
        tmp_path / "out", shape=shape, base=str(base), shards=("shards",), manifest=manifest, directory=shards
    )
    folder = tmp_path / "out" / "hf"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 5, 7]
    assert generation["temperature"] == 0.6
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
    kept = sidecar.read(folder)
    assert (kept.base, kept.stop, kept.adapter) == (str(base.resolve()), ("t0", "t5"), None)


def test_both_templates_and_their_arguments_go_with_the_model(shards: Path, tmp_path: Path) -> None:
    """As files and in tokenizer_config.json, where older versions look; a later start without them leaves none."""
    base = hf_folders.write(tmp_path / "base")
    (shards / "tokenizer" / "additional_chat_templates").mkdir()
    (shards / "tokenizer" / "additional_chat_templates" / "rag.jinja").write_text("not what was trained")
    plain = Manifest.read(shards)
    template = replace(plain.template, source="A", tools_source="B", arguments={"enable_thinking": False})
    folder, target = tmp_path / "out" / "hf", tmp_path / "exported"
    target.mkdir()
    for manifest in (replace(plain, template=template), plain):
        sidecar.write(
            tmp_path / "out", shape=hf_config.read(str(base)), base=str(base), shards=("shards",), manifest=manifest,
            directory=shards,
        )  # fmt: skip
        if manifest is not plain:
            copy_beside(folder, target)
            for place in (folder, target):
                assert (place / "chat_template.jinja").read_text() == "A"
                assert (place / "additional_chat_templates" / "tool_use.jinja").read_text() == "B"
                assert json.loads((place / "chat_template_kwargs.json").read_text()) == {"enable_thinking": False}
                assert not (place / "additional_chat_templates" / "rag.jinja").exists()
    assert not (folder / "chat_template_kwargs.json").exists()


def test_a_sidecar_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no sft\.json there"):
        sidecar.read(tmp_path)
    (tmp_path / "sft.json").write_text('{"schema": 1, "base": ""}')
    with pytest.raises(DataError, match="not what this release wrote"):
        sidecar.read(tmp_path)
    (tmp_path / "sft.json").write_text('{"schema": 1, "base": 5, "architecture": "", "shards": [], "stop": []}')
    with pytest.raises(DataError, match="base is 5, not a string"):
        sidecar.read(tmp_path)
    (tmp_path / "sft.json").write_text('{"schema": 2}')
    with pytest.raises(DataError, match="of schema 2"):
        sidecar.read(tmp_path)


def test_nothing_from_outside_is_put_beside_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (shards / "tokenizer" / "added_tokens.json").symlink_to(tmp_path / "secret")
    shape = hf_config.read(str(hf_folders.write(tmp_path / "base")))
    with pytest.raises(DataError, match=r"added_tokens\.json: is a link"):
        sidecar.write(
            tmp_path / "out", shape=shape, base=None, shards=(), manifest=Manifest.read(shards), directory=shards
        )


def test_another_end_token_in_the_models_own_tokenizer_is_a_warning(shards: Path, tmp_path: Path) -> None:
    info = Manifest.read(shards).tokenizer
    model = Path(tokenizer_folder(tmp_path / "model", VOCABULARY))
    config = json.loads((model / "tokenizer_config.json").read_text())

    def warned(**tokens: object) -> list[str]:
        (model / "tokenizer_config.json").write_text(json.dumps({**config, **tokens}))
        return special_tokens.warnings(model, info)

    assert info.eos_id == 1
    assert warned(eos_token="t1") == []
    (line,) = warned(eos_token={"content": "t0"})
    assert line.startswith("warning: EOS is id 1 in the shards and id 0 (t0)")
    assert special_tokens.warnings(tmp_path / "nothing", info) == []
