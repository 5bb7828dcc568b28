"""What a process of a cluster does before its first record: it reads what the plan wrote down, and no more."""

import subprocess
import sys
import threading

import pytest
from preprocess_jobs import INPUTS, SMALL, call, contents, error_line

from sft_shards.preprocess import runtime

pytestmark = pytest.mark.process

BLOCKED = """
import sys
sys.modules["transformers"] = None
if __name__ == "__main__":
    from sft_shards.preprocess.cli import main
    main()
"""
SHARED = """
import sft_shards.preprocess.engines.worker as worker

def refuse(*_):
    raise SystemExit("a worker loads for itself")

if __name__ == "__main__":
    from sft_shards.preprocess.cli import main
    main()
else:
    worker.planned_pipeline = refuse
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "out"
    call("run", *INPUTS[:2], *SMALL, "--output", output, "--workers", 1)
    return contents(output)


def test_tasks_and_finalize_do_without_transformers(tmp_path, reference):
    output = tmp_path / "out"
    call("plan", *INPUTS[:2], *SMALL, "--output", output)
    for words in (["task", "--workers", 1, "--rank", 0, "--world-size", 2], ["task", "--workers", 2], ["finalize"]):
        script = tmp_path / "blocked.py"
        script.write_text(BLOCKED)
        arguments = [sys.executable, script, *words, "--output", output]
        done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    assert contents(output) == reference


def test_workers_share_what_was_loaded_before_they_were_forked(tmp_path, reference):
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    arguments = [sys.executable, script, "run", *INPUTS[:2], *SMALL, "--output", tmp_path / "out", "--workers", 2]
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == reference


def test_a_tokenizer_that_is_not_the_one_planned(tmp_path):
    output = tmp_path / "out"
    call("plan", INPUTS[0], *SMALL, "--output", output)
    for name in ("loaded.npz", "tokenizer.json"):
        path = output / ".work" / "tokenizer" / name
        text = path.read_bytes()
        path.write_bytes(text.replace(b"<|im_end|>", b"<|im_fin|>", 1))
        line = error_line(call("task", "--output", output, "--workers", 1, status=1).stderr)
        assert f"{path}: not the tokenizer" in line
        assert line.endswith("plan again with --overwrite")
        path.write_bytes(text)


def test_a_program_with_threads_and_one_that_is_not_the_command_are_not_forked(monkeypatch):
    monkeypatch.setattr(threading, "_active", {threading.get_ident(): threading.current_thread()})
    assert not runtime.can_fork()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/bin/sft-preprocess", raising=False)
    assert runtime.can_fork()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not runtime.can_fork()
    end.set()
    thread.join()
    assert runtime.can_fork()
