"""`sft-train doctor` as a user calls it, and the imports that it makes in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from toy_runs import random_pairs, sft_train, write_shards

from sft_shards.trainer.doctor.imports import Imported, gather
from sft_shards.trainer.doctor.subjects import SUBJECTS

ROOT = Path(__file__).parents[3]
BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "megatron", "transformer_engine", "apex", "flash_attn", "psutil"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""
TORCH = """
__version__ = "2.12.0+rocm7.2.1"

class version:
    hip, cuda = "7.2.53211", None

class distributed:
    is_available = is_nccl_available = is_gloo_available = staticmethod(lambda: True)

class Properties:
    name, gcnArchName = "AMD Instinct MI355X", "gfx950:sramecc+:xnack-"

class cuda:
    init = staticmethod(lambda: None)
    device_count = staticmethod(lambda: 2)
    get_device_properties = staticmethod(lambda number: Properties)
    mem_get_info = staticmethod(lambda number: (number, 288))

    class nccl:
        version = staticmethod(lambda: (2, 27, 7))
"""
FAKES = {
    "torch/__init__.py": TORCH,
    "transformer_engine/__init__.py": "",
    "transformer_engine/pytorch.py": "",
    "apex/__init__.py": "",
    "apex/optimizers.py": "",
    "fused_weight_gradient_mlp_cuda.py": "",
    "flash_attn.py": "__version__ = '2.8.3'",
    "megatron/core/__init__.py": "__version__ = '0.16.0rc0'",
    "megatron/core/datasets/helpers_cpp.py": "",
    "megatron/training/__init__.py": "print('noise'); pretrain = print",
    "psutil.py": "__version__ = '7.0.0'",
}


def gathered(folder: Path, changed: dict[str, str] | None = None, seconds: float = 60) -> dict[str, Imported]:
    """What is found where `FAKES` are installed, some of them changed."""
    for name, text in {**FAKES, **(changed or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "megatron/__init__.py").touch()
    return gather(seconds, {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})


@pytest.mark.process
def test_what_is_imported(tmp_path: Path) -> None:
    found = gathered(tmp_path)
    assert list(found) == list(SUBJECTS)
    assert not [name for name, each in found.items() if each.failure]
    assert found["torch"].facts == {
        "version": "2.12.0+rocm7.2.1",
        "hip": "7.2.53211",
        "cuda": None,
        "nccl": True,
        "gloo": True,
    }
    device = {"name": "AMD Instinct MI355X", "arch": "gfx950", "total": 288}
    assert found["gpus"].facts == {
        "devices": [{**device, "free": 0}, {**device, "free": 1}],
        "reason": "",
        "rccl": "2.27.7",
    }
    assert found["apex"].facts["wgrad"] is True
    place = str(tmp_path)
    assert found["megatron"].facts == {"version": "0.16.0rc0", "core": place, "training": place, "failure": ""}


@pytest.mark.process
def test_an_import_that_aborts_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    abort = "import os, sys; print('terminate called: no HIP device', file=sys.stderr, flush=True); os.abort()"
    found = gathered(tmp_path, {"transformer_engine/pytorch.py": abort})
    broken = found.pop("transformer_engine")
    assert broken == Imported(failure="the import ended in SIGABRT (terminate called: no HIP device)", died=True)
    assert not [name for name, each in found.items() if each.failure]


@pytest.mark.process
def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is over as soon as the import hangs, however long the others take."""
    hangs, limit = tmp_path / "hangs", 1234.0
    wait = subprocess.Popen.wait

    def wait_until_it_hangs(child: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        while timeout == limit and child.poll() is None:
            if hangs.exists():
                hangs.unlink()
                raise subprocess.TimeoutExpired(child.args, limit)
            time.sleep(0.02)
        return wait(child, None if timeout == limit else timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_until_it_hangs)
    code = f"import time; open({str(hangs)!r}, 'w').close(); time.sleep(600)"
    found = gathered(tmp_path, {"flash_attn.py": code}, seconds=limit)
    broken = found.pop("flash_attn")
    assert broken == Imported(failure="no answer within 1234 s", died=True)
    assert not [name for name, each in found.items() if each.failure]


@pytest.mark.process
def test_without_torch_nothing_that_needs_it_is_tried(tmp_path: Path) -> None:
    """That torch's import ends the process is told once; Megatron would only say it again."""
    found = gathered(tmp_path, {"torch/__init__.py": "import os; os._exit(3)"})
    assert found["torch"] == Imported(failure="the import ended the process with exit status 3", died=True)
    assert found["megatron"] == Imported(failure="not tried, because torch cannot be imported")
    assert found["helpers"].failure == "not tried, because megatron cannot be imported"
    assert found["psutil"].facts == {"version": "7.0.0"}


@pytest.mark.process
def test_imports_that_raise(tmp_path: Path) -> None:
    changed = {
        "transformer_engine/pytorch.py": "raise OSError('undefined symbol: _ZN3c10\\nin libtorch.so')",
        "apex/optimizers.py": "import amp_C",
        "megatron/training/__init__.py": "import no_such_dependency",
        "megatron/core/datasets/helpers_cpp.py": "raise SystemExit('no compiler')",
    }
    found = gathered(tmp_path, changed)
    assert found["transformer_engine"] == Imported(failure="OSError: undefined symbol: _ZN3c10 in libtorch.so")
    assert found["apex"] == Imported(failure="ModuleNotFoundError: No module named 'amp_C'"), "it is there, and broken"
    assert found["megatron"].facts["failure"] == "ModuleNotFoundError: No module named 'no_such_dependency'"
    assert found["helpers"].failure == "SystemExit: no compiler"


@pytest.mark.process
def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    found = gather()
    assert list(found) == list(SUBJECTS)
    assert all(each.failure.startswith("FileNotFoundError: ") for each in found.values())


@pytest.mark.megatron
def test_this_machine_can_rehearse(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(6, seed=1)})
    done = sft_train("doctor", "--device", "cpu", "--shards", shards, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), report
    assert set(report) == {"device", "can_train", "findings"}
    assert (report["device"], report["can_train"]) == ("cpu", True)
    for finding in report["findings"]:
        assert list(finding) == ["name", "status", "found", "remedy"]
        assert finding["status"] in ("ok", "warning", "failing")
        assert (finding["remedy"] == "") == (finding["status"] == "ok")
    names = [finding["name"] for finding in report["findings"]]
    assert names[:2] == ["Python", "torch"]
    assert names[-1] == f"shards {shards}"


@pytest.mark.megatron
def test_without_a_gpu_it_cannot_train_on_one() -> None:
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), "")
    done = sft_train("doctor", **hidden)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failing  GPUs"))
    assert "→" in lines[at + 1]
    assert "--device cpu" in lines[at + 1]
    assert lines[-1].startswith("This machine cannot train with --device gpu")
    assert "\x1b" not in done.stdout, "no colour where nobody looks"


@pytest.mark.process
@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_it_reports_without_torch_and_megatron(tmp_path: Path, device: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = sft_train("doctor", "--device", device, "--json", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (1, "")
    failing = {each["name"]: each for each in json.loads(done.stdout)["findings"] if each["status"] == "failing"}
    assert {"torch", "Megatron", "psutil"} <= set(failing)
    assert failing["torch"]["found"] == failing["psutil"]["found"] == "not installed"
    assert all(each["remedy"] for each in failing.values())


@pytest.mark.process
def test_calls_that_are_wrong(tmp_path: Path) -> None:
    for words, call in (
        ("'tpu' is not one of", ["doctor", "--device", "tpu"]),
        ("takes no Megatron flags", ["doctor", "--", "--num-layers", "2"]),
        ("--shards is given before doctor", ["--shards", str(tmp_path), "doctor"]),
        ("unexpected extra argument", ["doctor", str(tmp_path)]),
    ):
        done = sft_train(*call)
        assert (done.returncode, done.stdout) == (2, ""), call
        assert done.stderr.startswith("sft-train: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
