"""What a crew says of a worker that dies before it is given its task: its own last words."""

import multiprocessing
import os
from types import SimpleNamespace

import pytest

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.engines import crew, worker_log

pytestmark = pytest.mark.unit


class DeadWorker:
    """A worker that has written why it died, and is dead, by the time that it is made."""

    made = 0

    def __init__(self, output):
        DeadWorker.made += 1
        self.pid = 2**22 + DeadWorker.made  # no process has it
        self.connection, theirs = multiprocessing.Pipe()
        theirs.close()
        self.process = SimpleNamespace(join=lambda: None, exitcode=1, kill=lambda: None)
        self.task = None
        path = os.path.join(os.environ[worker_log.FOLDER], f"{self.pid}.stderr")
        with open(path, "w") as file:
            file.write(f"Traceback …\nModuleNotFoundError: number {DeadWorker.made}\n")


def test_words_written_before_the_task_was_handed_out_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv(worker_log.FOLDER, str(tmp_path / "logs"))
    monkeypatch.setattr(crew, "_Worker", DeadWorker)
    task = SimpleNamespace(number=7, source=SimpleNamespace(path="in.jsonl"))
    running = crew.Crew(tmp_path, 1, SimpleNamespace())
    with pytest.raises(
        DataError, match=r"task 7 lost its worker 3 times \(exit status 1: ModuleNotFoundError: number 3"
    ):
        running.run([task])
    assert DeadWorker.made == crew.ATTEMPTS
