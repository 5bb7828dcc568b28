"""The lock of an output folder while another process publishes there, and removes `.work` at the worst moment.

Each test makes one interleaving happen: the call of the operating system that is named is made to find what the other
process left, once."""

import fcntl
import os
import shutil

import pytest

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import manifest
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.workdir import LOCK, WORK, clear

pytestmark = pytest.mark.unit


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "out"
    (folder / WORK).mkdir(parents=True)
    return folder


def publish(output):
    """Do what the process that ends does: the manifest is there, `.work` and the lock are not."""
    (output / manifest.NAME).touch()
    shutil.rmtree(output / WORK)


@pytest.fixture
def once_before(monkeypatch):
    """Make a call of a module run something else first, the first time that its arguments fit."""

    def arrange(module, name, fits, action):
        real, done = getattr(module, name), []

        def wrapped(*args, **kwargs):
            if not done and fits(*args):
                done.append(True)
                action()
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)
        return done

    return arrange


@pytest.mark.parametrize(
    ("module", "name", "fits"),
    [
        pytest.param(os, "open", lambda path, *_: os.path.basename(path) == WORK, id="before .work is opened"),
        pytest.param(os, "open", lambda path, *_: os.path.basename(path) == LOCK, id="before the lock is opened"),
        pytest.param(fcntl, "flock", lambda *_: True, id="before the lock is taken"),
    ],
)
def test_a_folder_that_is_removed_meanwhile_is_locked_again(output, once_before, module, name, fits):
    happened = once_before(module, name, fits, lambda: publish(output))
    with job_lock(output):
        assert happened
        with pytest.raises(DataError, match="another job writes"), job_lock(output):
            pass
    assert [path.name for path in output.iterdir()] == [manifest.NAME]


def test_a_lock_file_that_is_replaced_meanwhile_is_taken_again(output, once_before):
    def replace():
        (output / WORK / LOCK).unlink()
        (output / WORK / LOCK).touch()

    happened = once_before(fcntl, "flock", lambda *_: True, replace)
    with job_lock(output):
        assert happened
        with pytest.raises(DataError, match="another job writes"), job_lock(output):
            pass


def test_an_output_folder_that_is_gone_is_an_error(output, once_before):
    once_before(os, "open", lambda path, *_: os.path.basename(path) == WORK, lambda: shutil.rmtree(output))
    with pytest.raises(FileNotFoundError), job_lock(output):
        pass


def test_work_that_is_gone_before_it_is_cleared(tmp_path):
    (tmp_path / WORK / "tasks").mkdir(parents=True)
    (tmp_path / WORK / LOCK).touch()
    clear(tmp_path)
    assert os.listdir(tmp_path / WORK) == [LOCK]
    shutil.rmtree(tmp_path / WORK)
    clear(tmp_path)
