"""The recipes of the images: what can be proven of them without building one."""

import base64
import configparser
import hashlib
import os
import re
import subprocess
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pip
import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
DOCKERFILES = ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile.preprocess"
INSTALL = ROOT / "docker/install.sh"
HIP = {"torch/__init__.py": "from torch import version", "torch/version.py": "hip = '7.15.0'"}
CUDA = {"torch/__init__.py": "from torch import version", "torch/version.py": "hip = None"}


each = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Every instruction of a Dockerfile and its words, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def copied(dockerfile: Path) -> list[str]:
    return [source for name, words in instructions(dockerfile) if name == "COPY" for source in words.split()[:-1]]


@each
def test_the_linter_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    done = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    subprocess.run(["bash", "-n", INSTALL], check=True)
    for words in (words for name, words in instructions(dockerfile) if name == "RUN"):
        subprocess.run(["bash", "-n", "-c", words], check=True)


@each
def test_what_is_copied_is_there_and_is_all_that_the_package_needs(dockerfile: Path) -> None:
    assert all((ROOT / source).exists() for source in copied(dockerfile))
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {name.split(".")[1] for name in config["options"]["packages"].split() if "." in name}
    readme = config["metadata"]["long_description"].removeprefix("file: ")
    needed = {"setup.cfg", "pyproject.toml", readme, config["metadata"]["license_files"], *packages}
    assert needed | {"__init__.py", "py.typed"} <= set(copied(dockerfile))


def test_what_is_copied_reaches_the_build_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignore[1] == "*", "nothing but what is named"
    assert {source.split("/")[0] for one in DOCKERFILES for source in copied(one)} == {
        line[1:] for line in ignore if line.startswith("!")
    }


@each
def test_variables_are_declared_before_they_are_used(dockerfile: Path) -> None:
    known: set[str] = set()
    for name, words in instructions(dockerfile):
        assert set(re.findall(r"\$\{?(\w+)", words)) <= known, words
        if name == "FROM":
            known = set()  # what stands above it is known to FROM alone
        if name in ("ARG", "ENV"):
            known.add(words.partition("=")[0])


@each
def test_the_base_is_named_by_tag_and_digest_and_its_tag_in_the_documents(dockerfile: Path) -> None:
    (base,) = [words for name, words in instructions(dockerfile) if name == "ARG" and words.startswith("BASE_IMAGE=")]
    tag, _, digest = base.partition("=")[2].partition("@")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert f"`{tag}`" in (ROOT / "docs/image.md").read_text("utf-8")


def wheel(folder: Path, name: str, version: str, *, requires: list[str] | None = None, **files: str) -> Path:
    """A wheel of that name with nothing in it but `files`."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires or [])
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return made


class Image:
    """A Python as a base image has it, and an index that has newer builds of everything, for other GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder, folder / "index"
        venv.create(folder / "python", with_pip=False)
        (self.site,) = (folder / "python/lib").glob("python*/site-packages")
        (self.site / "pip").symlink_to(Path(pip.__file__).parent)
        for name, version in (("torch", "2.13.0"), ("triton", "3.9.0"), ("numpy", "9.0"), ("torchdata", "0.11")):
            wheel(self.index, name, version)

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run something where this Python comes first, and nothing is known of any other index."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH" and name[:4] != "PIP_"},
            "PATH": f"{self.folder / 'python/bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
        }
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, env=environment, check=False
        )

    def bring(self, name: str, version: str, **files: str) -> None:
        """Install what the base image brings, which is on no index."""
        with zipfile.ZipFile(wheel(self.folder / "base", name, version, **files)) as archive:
            archive.extractall(self.site)

    def install(self, requires: list[str], *words: str) -> subprocess.CompletedProcess[str]:
        """Run the script on a project with these requirements."""
        project = wheel(self.folder, "project", "1.0", requires=requires)
        return self.run("bash", INSTALL, project, *words)

    def versions(self) -> dict[str, str]:
        listed = self.run("python", "-m", "pip", "list", "--format=freeze").stdout.split()
        return dict(line.split("==") for line in listed)


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Image]:
    def make(files: dict[str, str] = HIP) -> Image:
        made = Image(tmp_path)
        made.bring("torch", "2.12.0+rocm7.15.0a20260720", **files)
        made.bring("triton", "3.7.1+git0263a6a6.rocm7.15.0a20260720")
        made.bring("transformer-engine-rocm-torch", "2.15.0.dev0+rocm7.15.0a20260716.a07e607")
        made.bring("numpy", "2.5.1")
        return made

    return make


def requirements() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["install_requires"].split()


def test_what_the_project_requires_replaces_nothing(image: Callable[..., Image]) -> None:
    """The requirements of setup.cfg, where every one of them (and torch through them) could be had newer."""
    base = image()
    before = base.versions()
    for requirement in requirements():
        name, _, version = re.split("(==|>=)", requirement.partition(",")[0])
        if name != "numpy":
            wheel(base.index, name, version, requires=["torch", "numpy>=1.17", "triton"])
    done = base.install(requirements(), "hip")
    assert done.returncode == 0, done.stdout + done.stderr
    after = base.versions()
    assert {name: after[name] for name in before} == before
    assert {"project", "fastokens", "transformers"} <= set(after)
    kept = done.stdout.partition("Processing ")[0]
    assert all(f"{name}=={version}" in kept for name, version in before.items())


@pytest.mark.parametrize("requirement", ["torch>=2.13", "numpy>=3", "triton>3.8"])
def test_what_would_have_to_be_replaced_fails_the_build(image: Callable[..., Image], requirement: str) -> None:
    base = image()
    before = base.versions()
    done = base.install([requirement], "hip")
    assert done.returncode != 0
    assert f"The user requested (constraint) {requirement.partition('>')[0]}==" in done.stdout
    assert base.versions() == before


def test_what_would_be_added_for_another_gpu_fails_the_build(image: Callable[..., Image]) -> None:
    done = image().install(["torchdata"], "hip")
    assert done.returncode != 0
    assert "torchdata==0.11" in done.stdout
    assert "replaced or added" in done.stderr


def test_a_torch_that_is_not_built_for_rocm_fails_the_build(image: Callable[..., Image]) -> None:
    base = image(CUDA)
    done = base.install([], "hip")
    assert done.returncode == 1
    assert "not built for ROCm" in done.stderr
    assert base.install([]).returncode == 0, "nobody asked"


def test_a_base_without_torch_fails_the_build(tmp_path: Path) -> None:
    done = Image(tmp_path).install([], "hip")
    assert done.returncode == 1
    assert "no torch" in done.stderr
