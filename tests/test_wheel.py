"""The wheel: all that the package has is in it, and its commands work where nothing of the repository is to be found."""

import configparser
import email
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from built_wheel import ROOT, build_wheel

import sft_shards.formats

pytestmark = pytest.mark.process

DATA = ROOT / "tests" / "data"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="builds the wheel")
    return build_wheel(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, in which the libraries of this one are found, but not this package."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries), "utf-8")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--ignore-installed"]
    call = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *options, wheel]
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    folders = ("formats", "preprocess", "trainer")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    ours = {path.relative_to(ROOT) for path in files if "__pycache__" not in path.parts}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {f"sft_shards/{name}" for name in ("__init__.py", "py.typed", *map(str, ours))}


def test_the_commands_work_where_the_repository_is_not(environment: Path, tmp_path: Path) -> None:
    bin_ = environment / "bin"
    found = run(bin_ / "python", "-c", "import sft_shards.formats as it; print(it.__file__)", cwd=tmp_path).strip()
    assert Path(found).is_relative_to(environment)
    assert found != sft_shards.formats.__file__
    call = ["run", DATA / "alpaca_en.json", "--tokenizer", DATA / "tokenizer", "--output", "out", "--workers", 1]
    run(bin_ / "sft-preprocess", *call, cwd=tmp_path)
    run(bin_ / "sft-preprocess", "verify", "out", cwd=tmp_path)
    assert "sft-shards" in run(bin_ / "sft-train", "--version", cwd=tmp_path)
    assert "--shards" in run(bin_ / "python", "-m", "sft_shards.trainer", "-h", cwd=tmp_path)


def test_nothing_brings_torch_but_the_extras_that_say_so(wheel: Path) -> None:
    """megatron-core's wheel and peft require torch, which the index has for other GPUs."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    bringing = [line for line in metadata.get_all("Requires-Dist") if line.startswith(("torch", "megatron", "peft"))]
    assert {line.partition("extra == ")[2].strip("\"'") for line in bringing} == {"train-torch", "chat", "dev"}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    assert config["options.extras_require"]["train"].split() == ["psutil"]
