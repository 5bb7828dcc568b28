"""Damaged shard directories: findings or one error line, never a traceback, a hang, or a change of anything outside."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from fuzzing import corpus, fuzz
from mutations import MUTATIONS, copy, mutate
from preprocess_jobs import INPUTS, config

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.preprocess.directories.compare import compare, summary, table
from sft_shards.preprocess.directories.merge import merge
from sft_shards.preprocess.directories.show import Viewer
from sft_shards.preprocess.directories.verify import verify
from sft_shards.preprocess.job import run
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.scan import check_layout, check_values

pytestmark = pytest.mark.process
FILES = 24
"""Of the directory that is damaged."""


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    root = tmp_path_factory.mktemp("directories")
    source, made, folder, other = root / "in.jsonl", root / "made", root / "damaged", root / "other"
    source.write_bytes(b"".join(INPUTS[0].read_bytes().splitlines(keepends=True)[:30]))
    run(config([source]), made, workers=1)
    shutil.copytree(made, other)
    assert len(folder_state(made)) == FILES

    def check(data: bytes) -> None:
        mutate(copy(made, folder), data)
        before = folder_state(other)
        looks = {
            "verify": lambda: verify(folder),
            "quick": lambda: verify(folder, quick=True),
            "list": lambda: table([summary(folder)]),
            "diff": lambda: [*compare(other, folder), *compare(folder, other)],
            "inspect": lambda: list(Viewer(folder, "train").row(0)),
            "merge": lambda: merge([other, folder], copy_of_nothing(root / "merged")),
            "layout": lambda: check_layout([ShardDirectory(folder)]),
            "values": lambda: check_values([ShardDirectory(folder)], Cache(copy_of_nothing(root / "cache"))),
        }
        for name, look in looks.items():
            try:
                look()
            except (DataError, UsageError) as error:
                assert "\n" not in str(error), f"{name}: {error}"
        assert folder_state(other) == before

    return check


def copy_of_nothing(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def folder_state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("path", corpus("directories"), ids=lambda path: path.name)
def test_kept_inputs(check, path: Path) -> None:
    check(path.read_bytes())


@pytest.mark.parametrize("kind", ["out", "fifo", "folder"])
def test_every_file_in_turn_is_a_link_out_of_it_a_fifo_or_a_folder(check, kind: str) -> None:
    for number in range(FILES):
        check(json.dumps([[kind, number, 0, 0]]).encode())


def test_new_inputs(check) -> None:
    assert sys.platform == "linux"
    assert fuzz("directories", check, MUTATIONS)
