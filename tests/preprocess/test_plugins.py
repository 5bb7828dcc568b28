"""The example of docs/formats.md, installed as a package of somebody else's and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent


def test_the_documented_example_registers_a_format_and_a_template(tmp_path: Path, bpe_folder: Path) -> None:
    text = (ROOT / "docs" / "formats.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (declared,) = re.findall(r"```ini\n.*?\[options.entry_points\]\n(.*?)```", text, re.DOTALL)
    site = tmp_path / "site"
    info = site / "my_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_package.py").write_text(code, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    groups = re.findall(r"(\S+) =\n    (\S+ = \S+)", declared)
    assert len(groups) == 2
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in groups))
    (tmp_path / "in.jsonl").write_text('{"q": "Name a colour.", "a": "Blue."}\n{"q": "x", "a": 7}\n')

    def call(*arguments: object) -> str:
        command = [sys.executable, "-m", "sft_shards.preprocess.cli", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"records +qa .*q, a", call("formats"))
    assert re.search(r"template +terse", call("formats"))
    out = tmp_path / "out"
    call("run", tmp_path / "in.jsonl", "--output", out, "--tokenizer", bpe_folder, "--template", "terse")
    assert call("inspect", out).split("\n", 1)[1].strip() == "Name a colour.\n⟦Blue.<|im_end|>⟧"
