"""No value of a call, a file or a folder's name adds a line, a comment's end or a mount to a script of ours."""

import json
import os
import shlex
from pathlib import Path

import pytest

from sft_shards.formats import sbatch
from sft_shards.formats.errors import UsageError
from sft_shards.formats.scripts import checked, checked_lines, comment
from sft_shards.preprocess.engines import kubernetes, slurm
from sft_shards.trainer import cli
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch.container import Container
from sft_shards.trainer.launch.environment import Variable
from sft_shards.trainer.launch.slurm import Slurm

pytestmark = pytest.mark.unit

HOSTILE = ["a\nrm -rf x", "a\r#SBATCH --wrap=x", "a\x1b]0;x\x07", "a\x00b", "a\u2028b", "a\x85b", "a\udcffb"]


class PlannedJob:
    """What an engine needs to know to write its script."""

    def __init__(self, output="out", arguments=()):
        self.output = self.folder = Path(output)
        self.arguments = arguments
        self.workers, self.max_rejects, self.as_json = 2, "1%", False


def slurm_engine(**values):
    return slurm.Slurm(**{"array": 2, "slurm_option": {}, "slurm_setup": "", "follow": False, **values})


def pods(**values):
    return kubernetes.Kubernetes(**{"array": 2, "image": "i", "claim": "c", "mount": "/data", **values})


def refused(call, *match):
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable(), message
    assert all(word in message for word in match), message


@pytest.mark.parametrize("text", HOSTILE)
def test_each_value_of_a_batch_job_is_refused(text):
    refused(lambda: checked(text, "--x"), "--x: ", "no script may hold")
    refused(lambda: sbatch.site_options([f"comment={text}"]), "--slurm-option")
    refused(lambda: sbatch.site_options([f"{text}=1"]), "--slurm-option")
    refused(lambda: sbatch.head({"comment": text}), "--comment")
    refused(lambda: slurm_engine(slurm_option={"comment": text}).script(PlannedJob()), "--comment")
    for name in ("image", "claim", "mount"):
        refused(lambda name=name: pods(**{name: text}).script(PlannedJob()), f"--{name}")
    refused(lambda: pods().script(PlannedJob(arguments=(text,))), "the call")
    container = Container(image=text, runtime="pyxis")
    for own in ({"options": {"comment": text}}, {"container": container}):
        refused(lambda own=own: Slurm(nodes=1, **own).script(Job(shards=("s",)), ["--shards", "s"]))
    refused(lambda: Slurm(nodes=1).script(Job(shards=("s",)), ["--shards", text]), "the call")
    for job in (
        Job(shards=(text,)),
        Job(shards=("s",), flags=("--lr", text)),
        Job(shards=("s",), config={"lr": text}, config_path="run.yaml"),
        Job(shards=("s",), config={"lr": [text]}, config_path="run.yaml"),
    ):
        refused(lambda job=job: cli._start(job, None, None))


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text])
def test_names_of_folders_are_refused(tmp_path, monkeypatch, text):
    refused(lambda: slurm_engine().script(PlannedJob(tmp_path / text)), "--output")
    refused(lambda: pods().script(PlannedJob(tmp_path / text)), "--output")
    there = tmp_path / text
    there.mkdir()
    monkeypatch.chdir(there)
    refused(lambda: slurm_engine().script(PlannedJob(tmp_path / "out")), "the working directory")
    refused(lambda: Slurm(nodes=1).script(Job(shards=("s",)), ["--shards", "s"]), "the working directory")


def test_shell_lines_may_be_several_and_nothing_else():
    assert checked_lines("module load x\n\tactivate", "--slurm-setup") == "module load x\n\tactivate"
    refused(lambda: checked_lines("module\x1b[2J", "--slurm-setup"), "--slurm-setup")
    refused(lambda: slurm_engine(slurm_setup="a\x00b").script(PlannedJob()), "--slurm-setup")
    refused(lambda: Slurm(nodes=1, setup="a\x9bb").script(Job(shards=("s",)), []), "--slurm-setup")


def test_options_of_sbatch_have_names():
    for value in ("a b=1", "a#b", "=x", "a;b=1", "$(x)"):
        refused(lambda value=value: sbatch.site_options([value]), "must have the form KEY=VALUE")
    assert sbatch.site_options(["--mem-per-cpu=2G", "exclusive"]) == {"mem-per-cpu": "2G", "exclusive": ""}


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer", "docker"])
def test_a_comma_or_a_colon_adds_no_mount(tmp_path, monkeypatch, runtime):
    for name in ("a,b", "a:b"):
        there = tmp_path / name
        there.mkdir()
        monkeypatch.chdir(there)
        refused(lambda: Container(image="i", runtime=runtime).command(Job(shards=("s",))), "cannot mount")
    monkeypatch.chdir(tmp_path)
    for mount in ("/a,/b:/c", "/a:/b,/etc:/etc", "/a,b"):
        own = Container(image="i", runtime=runtime, mounts=(mount,))
        refused(lambda own=own: own.command(Job(shards=("s",))), "a comma would add another mount")


def test_a_comment_ends_where_its_line_ends():
    assert comment("a\nrm -rf x") == r"# a\nrm -rf x"
    yours = Variable(name="X", value="1", reason="r", yours="2\nrm -rf x")
    assert "\n" not in yours.shell()
    assert yours.shell().startswith("# X=")


def test_pods_are_given_what_the_call_says():
    """Kubernetes replaces $(NAME) in commands by a variable, and $$( by $(."""
    script = json.loads(pods().script(PlannedJob("o$(X)", ("in $(JOB_COMPLETIONS)'s",))))
    plan = script["items"][0]["spec"]["template"]["spec"]["initContainers"][0]["command"]
    assert plan[2] == "in $$(JOB_COMPLETIONS)'s"
    assert plan[4] == "o$$(X)"
    refused(lambda: pods(mount="/a:b").script(PlannedJob()), "colon")


def test_everything_else_is_quoted(tmp_path):
    output = tmp_path / "a b'c\"$(x);&"
    words = "two 'words' $(x)"
    script = slurm_engine(slurm_option={"comment": words}).script(PlannedJob(output))
    assert f"--output {shlex.quote(os.fspath(output))}" in script
    assert f"#SBATCH --comment={shlex.quote(words)}" in script
