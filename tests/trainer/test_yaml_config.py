"""The YAML file: what is taken, and one line for each thing that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import yaml_config

pytestmark = pytest.mark.unit


def read(folder: Path, text: str) -> yaml_config.Config:
    path = folder / "run.yaml"
    path.write_text(text, "utf-8")
    return yaml_config.read(str(path))


def test_own_options_and_flags_are_told_apart(tmp_path: Path) -> None:
    text = "shards: data\ndevice: cpu\nnproc: 2\nnum_layers: 4\nlr: 1.0e-3\nswiglu: true\nx: [a, 1]\n"
    found = read(tmp_path, text + "epochs: 2\nbatching: padded\nstage: mine\ncache_dir: here\nisolation: mask\n")
    ours = {"epochs": "2", "batching": "padded", "stage": "mine", "cache-dir": "here", "isolation": "mask"}
    assert found.own == {"shards": ["data"], "device": "cpu", "nproc": 2, **ours}
    assert found.megatron == {"num-layers": 4, "lr": 0.001, "swiglu": True, "x": ["a", 1]}


def test_a_models_configuration_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "hf_config: models/a.json\n").own == {"hf-config": str(tmp_path / "models/a.json")}
    assert read(tmp_path, "hf-config: /models/b\n").own == {"hf-config": "/models/b"}


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing\n") == yaml_config.Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "a mapping"),
        ("a: [1\n", "not YAML"),
        ("num-layers: 2\nnum_layers: 3\n", "twice"),
        ("net:\n  num-layers: 2\n", "'net' holds a dict"),
        ("random-weights: 1\n", "'random-weights' is true or false"),
        ("skip-scan: 1\n", "'skip-scan' is true or false"),
        ("model: 3\n", "'model' is a text"),
        ("lr:\n", "'lr' holds nothing"),
        ("device: tpu\n", "gpu, cpu"),
        ("nproc: two\n", "number of processes"),
        ("shards: {a: 1}\n", "list of directories"),
        ("overlong: error\n", "truncate, drop"),
        ("batching: none\n", "packed, padded"),
        ("isolation: none\n", "auto, te, flash, torch, sdpa"),
        ("epochs: many\n", "'epochs' is a number"),
        ("epochs: true\n", "'epochs' is a number"),
        ("stage: 3\n", "'stage' is a text"),
        ("hf-config: 3\n", "'hf-config' is a text"),
        ("revision: 3\n", "'revision' is a text"),
        ("trust-remote-code: true\n", "give --trust-remote-code after -- in the call"),
        ("trust_remote_code: false\n", "give --trust-remote-code after -- in the call"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, text)
    assert words in str(error.value)
    assert "run.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot read"):
        yaml_config.read(str(tmp_path / "none.yaml"))
